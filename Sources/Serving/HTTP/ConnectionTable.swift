package import NIOCore
import Synchronization

/// The table of a server's connections. If there are too many, a new connection closes an old one: the one that has
/// been idle longest or, if none is idle, the one whose request has been arriving longest; never one that is being
/// answered. Idle connections therefore cannot exclude clients.
///
/// A connection counts as idle only after a while. Otherwise a client that has just connected, and whose request was not
/// read yet, would be the first to be closed for connections that never send the rest of theirs.
package final class ConnectionTable: Sendable {
    package enum State: Sendable {
        /// No request has begun to arrive.
        case idle
        /// A request has begun to arrive and is not complete.
        case receiving
        case answering
    }

    private struct Entry {
        let channel: any Channel
        let address: String
        var state = State.idle
        /// When the state was set.
        var since: NIODeadline

        /// The order in which connections are closed: those that are idle, then those that may be about to send.
        func order(_ now: NIODeadline) -> (Int, NIODeadline) {
            (state == .idle && now - since >= ConnectionTable.idleTime ? 0 : 1, since)
        }
    }

    private struct Content {
        var entries: [ObjectIdentifier: Entry] = [:]
        var perAddress: [String: Int] = [:]
    }

    /// The number of connections beyond which every new one closes another.
    private let most: Int
    /// The number of connections from one address beyond which every new one closes another of that address.
    private let mostPerAddress: Int
    /// The number of connections accepted beyond `most` while all are being answered, so that operators can connect.
    static let reserve = 64
    /// The time without a request after which a connection counts as idle.
    static let idleTime = TimeAmount.seconds(1)
    private let content = Mutex(Content())

    package init(most: Int, perAddress: Int) {
        self.most = most
        mostPerAddress = perAddress
    }

    /// Adds a connection. If there are too many, it closes another one or, if all are being answered, this one.
    ///
    /// - Parameter now: the time, which tests set.
    package func open(_ channel: any Channel, now: NIODeadline = .now()) {
        let address = channel.remoteAddress?.ipAddress ?? ""
        let excess = content.withLock { content -> (any Channel)? in
            var leaving: ObjectIdentifier?
            if content.perAddress[address, default: 0] >= mostPerAddress {
                leaving = Self.first(of: content.entries.filter { $0.value.address == address }, now)
                if leaving == nil { return channel }
            } else if content.entries.count >= most {
                leaving = Self.first(of: content.entries, now)
                if leaving == nil, content.entries.count >= most + Self.reserve { return channel }
            }
            let other = leaving.flatMap { Self.remove($0, &content) }
            content.entries[ObjectIdentifier(channel)] = Entry(channel: channel, address: address, since: now)
            content.perAddress[address, default: 0] += 1
            return other
        }
        excess?.close(promise: nil)
    }

    /// Removes a connection that was closed.
    func close(_ channel: any Channel) {
        content.withLock { _ = Self.remove(ObjectIdentifier(channel), &$0) }
    }

    package func set(_ state: State, of channel: any Channel, now: NIODeadline = .now()) {
        content.withLock { content in
            content.entries[ObjectIdentifier(channel)]?.state = state
            content.entries[ObjectIdentifier(channel)]?.since = now
        }
    }

    package var count: Int { content.withLock { $0.entries.count } }

    /// Returns the connection to close first; `nil` if all are being answered.
    private static func first(of entries: [ObjectIdentifier: Entry], _ now: NIODeadline) -> ObjectIdentifier? {
        entries.lazy.filter { $0.value.state != .answering }.min { $0.value.order(now) < $1.value.order(now) }?.key
    }

    private static func remove(_ key: ObjectIdentifier, _ content: inout Content) -> (any Channel)? {
        guard let entry = content.entries.removeValue(forKey: key) else { return nil }
        if let count = content.perAddress[entry.address] {
            content.perAddress[entry.address] = count > 1 ? count - 1 : nil
        }
        return entry.channel
    }
}
