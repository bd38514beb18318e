import Disaggregation
import NIOCore

/// A frame channel carries the frames of one session between two servers, in order. What comes goes to one receiver, on the
/// event loop of the session's messages.
protocol FrameChannel: AnyObject, Sendable {
    var eventLoop: any EventLoop { get }
    /// Lets a receiver have what comes; `nil` ends that.
    func deliver(to receive: (@Sendable (RecordConnection.Event) -> Void)?)
    /// Sends a frame. The future ends when the frame takes no more memory here. Nothing happens on the caller's stack.
    @discardableResult
    func send(_ frame: [UInt8]) -> EventLoopFuture<Void>
    /// Sets whether frames are read, as they are at first. While they are not, the other end can soon send no more.
    func setReads(_ reads: Bool)
    func close()
}

enum FrameLimit {
    /// The longest frame.
    static let bytes = KVFrame.headerBytes + KVFrame.maxPayload
}

/// The parts of a session that its channel for frames follows from.
struct FrameChannelSettings: Sendable {
    let backend: TransferBackend
    let role: TransferHandshake.Role
    let secret: TransferSecret
    let ucx: UCXSettings
    let limits: TransferLimits

    /// Makes the channel, once both servers have proven on its connection who they are.
    ///
    /// - Parameter completed: is called once, on the event loop. After a failure the connection is closed.
    func open(
        _ connection: RecordConnection,
        completed: @escaping @Sendable (Result<any FrameChannel, TransferFailure>) -> Void
    ) {
        switch backend {
        case .tcp:
            connection.bounds = RecordConnection.Bounds(record: FrameLimit.bytes)
            completed(.success(connection))
        case .ucx:
            do throws(TransferFailure) {
                let settings = try ucx.restricted(to: connection.channel.localAddress)
                UCXFrames.open(
                    connection, role, secret, settings, within: limits.secondConnection, completed: completed)
            } catch {
                connection.close()
                completed(.failure(error))
            }
        }
    }
}

/// The second TCP connection of a session, as it carries frames itself.
extension RecordConnection: FrameChannel {
    var eventLoop: any EventLoop { channel.eventLoop }

    func setReads(_ reads: Bool) {
        // `setOption` takes effect at once on the event loop, and later on other threads. Queued, calls keep their order.
        channel.eventLoop.execute { [channel] in
            // It fails if the connection is over, and then there is nothing to read.
            channel.setOption(.autoRead, value: reads).whenComplete { _ in }
        }
    }
}
