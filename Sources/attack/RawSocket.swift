import Foundation

/// A blocking TCP connection to a port of this machine, on which bytes are sent as they are.
final class RawSocket {
    struct ConnectFailure: Error, CustomStringConvertible {
        let number: Int32
        var description: String { "cannot connect: error \(number)" }
    }

    private let descriptor: Int32
    private var isOpen = true

    /// Connects to 127.0.0.1.
    ///
    /// - Parameter receiveBuffer: the size of the receive buffer in bytes, for a client that reads slowly; `nil` for
    ///   the system's default.
    init(port: Int, receiveBuffer: Int32? = nil) throws(ConnectFailure) {
        descriptor = socket(
            AF_INET, Int32(SOCK_STREAM.rawValue) | Int32(SOCK_CLOEXEC.rawValue), Int32(IPPROTO_TCP))
        guard descriptor >= 0 else { throw ConnectFailure(number: errno) }
        if var size = receiveBuffer {
            unsafe setsockopt(descriptor, SOL_SOCKET, SO_RCVBUF, &size, socklen_t(MemoryLayout<Int32>.size))
        }
        // Bounds the time of connecting and of each send.
        var limit = timeval(tv_sec: Int(Patience.answer / .seconds(1)), tv_usec: 0)
        unsafe setsockopt(descriptor, SOL_SOCKET, SO_SNDTIMEO, &limit, socklen_t(MemoryLayout<timeval>.size))
        var address = sockaddr_in()
        address.sin_family = sa_family_t(AF_INET)
        address.sin_port = UInt16(port).bigEndian
        address.sin_addr.s_addr = UInt32(0x7F00_0001).bigEndian
        let size = socklen_t(MemoryLayout<sockaddr_in>.size)
        let connected = unsafe withUnsafePointer(to: &address) {
            unsafe $0.withMemoryRebound(to: sockaddr.self, capacity: 1) { unsafe connect(descriptor, $0, size) }
        }
        guard connected == 0 else {
            let number = errno
            _ = Foundation.close(descriptor)
            isOpen = false
            throw ConnectFailure(number: number)
        }
    }

    deinit { close() }

    /// Sends all bytes and returns true; returns false once the server no longer takes them.
    @discardableResult
    func send(_ bytes: some Collection<UInt8>) -> Bool {
        let bytes = Array(bytes)
        var sent = 0
        while sent < bytes.count {
            let count = unsafe bytes.withUnsafeBytes {
                unsafe Foundation.send(
                    descriptor, $0.baseAddress! + sent, bytes.count - sent, Int32(MSG_NOSIGNAL))
            }
            if count < 0, errno == EINTR { continue }
            guard count > 0 else { return false }
            sent += count
        }
        return true
    }

    @discardableResult
    func send(_ text: String) -> Bool { send(text.utf8) }

    enum Received {
        case bytes([UInt8])
        /// The server has closed or reset the connection.
        case end
        case timeout
    }

    /// Waits until `deadline` for bytes or the end of the connection.
    func receive(until deadline: ContinuousClock.Instant) -> Received {
        var entry = pollfd(fd: descriptor, events: Int16(POLLIN), revents: 0)
        while true {
            let left = ContinuousClock.now.duration(to: deadline) / .milliseconds(1)
            let ready = unsafe poll(&entry, 1, Int32(min(max(left, 0), 1e6).rounded(.up)))
            if ready < 0, errno == EINTR { continue }
            if ready > 0 { break }
            if ContinuousClock.now >= deadline { return .timeout }
        }
        let count = unsafe withUnsafeTemporaryAllocation(byteCount: 1 << 16, alignment: 1) { space -> [UInt8] in
            let count = unsafe recv(descriptor, space.baseAddress, space.count, 0)
            return unsafe Array(space.prefix(max(count, 0)))
        }
        return count.isEmpty ? .end : .bytes(count)
    }

    /// Tells the server that nothing more will be sent.
    func halfClose() { _ = shutdown(descriptor, Int32(SHUT_WR)) }

    func close() {
        guard isOpen else { return }
        isOpen = false
        _ = Foundation.close(descriptor)
    }

    /// Ends the connection with a reset, and drops what was not sent.
    func reset() {
        var option = linger(l_onoff: 1, l_linger: 0)
        unsafe setsockopt(descriptor, SOL_SOCKET, SO_LINGER, &option, socklen_t(MemoryLayout<linger>.size))
        close()
    }
}
