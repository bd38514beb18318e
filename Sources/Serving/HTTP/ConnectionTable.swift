import NIOCore
import Synchronization

/// The table of a server's connections. If there are too many, a new connection closes an old one: the one that has
/// been idle longest or, if none is idle, the one whose request has been arriving longest; never one that is being
/// answered. Idle connections therefore cannot exclude clients.
final class ConnectionTable: Sendable {
    enum State: Int, Sendable {
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
        /// The value of `changes` when the state was set; the entry with the smallest has been in its state longest.
        var since: UInt64
    }

    private struct Content {
        var entries: [ObjectIdentifier: Entry] = [:]
        var perAddress: [String: Int] = [:]
        var changes: UInt64 = 0
    }

    /// The number of connections beyond which every new one closes another.
    private let most: Int
    /// The number of connections from one address beyond which every new one closes another of that address.
    private let mostPerAddress: Int
    /// The number of connections accepted beyond `most` while all are being answered, so that operators can connect.
    static let reserve = 64
    private let content = Mutex(Content())

    init(most: Int, perAddress: Int) {
        self.most = most
        mostPerAddress = perAddress
    }

    /// Adds a connection. If there are too many, it closes another one or, if all are being answered, this one.
    func open(_ channel: any Channel) {
        let address = channel.remoteAddress?.ipAddress ?? ""
        let excess = content.withLock { content -> (any Channel)? in
            content.changes += 1
            let since = content.changes
            var leaving: ObjectIdentifier?
            if content.perAddress[address, default: 0] >= mostPerAddress {
                leaving = Self.oldest(content.entries.filter { $0.value.address == address })
                if leaving == nil { return channel }
            } else if content.entries.count >= most {
                leaving = Self.oldest(content.entries)
                if leaving == nil, content.entries.count >= most + Self.reserve { return channel }
            }
            let other = leaving.flatMap { Self.remove($0, &content) }
            content.entries[ObjectIdentifier(channel)] = Entry(channel: channel, address: address, since: since)
            content.perAddress[address, default: 0] += 1
            return other
        }
        excess?.close(promise: nil)
    }

    /// Removes a connection that was closed.
    func close(_ channel: any Channel) {
        content.withLock { _ = Self.remove(ObjectIdentifier(channel), &$0) }
    }

    func set(_ state: State, of channel: any Channel) {
        content.withLock { content in
            content.changes += 1
            let since = content.changes
            content.entries[ObjectIdentifier(channel)]?.state = state
            content.entries[ObjectIdentifier(channel)]?.since = since
        }
    }

    var count: Int { content.withLock { $0.entries.count } }

    private static func oldest(_ entries: [ObjectIdentifier: Entry]) -> ObjectIdentifier? {
        entries.lazy.filter { $0.value.state != .answering }
            .min { ($0.value.state.rawValue, $0.value.since) < ($1.value.state.rawValue, $1.value.since) }?.key
    }

    private static func remove(_ key: ObjectIdentifier, _ content: inout Content) -> (any Channel)? {
        guard let entry = content.entries.removeValue(forKey: key) else { return nil }
        if let count = content.perAddress[entry.address] {
            content.perAddress[entry.address] = count > 1 ? count - 1 : nil
        }
        return entry.channel
    }
}
