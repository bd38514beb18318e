import NIOCore
import Synchronization

/// The connections of a server, and which of them has to make room when there are too many: one on which nothing is
/// asked, then one whose request dawdles; never one that is being answered. So idle connections, however many, keep
/// nobody out.
final class ConnectionTable: Sendable {
    enum State: Int, Sendable {
        /// No request has begun.
        case idle
        /// A request has not come whole.
        case receiving
        case answering
    }

    private struct Entry {
        let channel: any Channel
        let address: String
        var state = State.idle
        /// Counts changes of all connections: the smallest has waited longest.
        var since: UInt64
    }

    private struct Content {
        var entries: [ObjectIdentifier: Entry] = [:]
        var perAddress: [String: Int] = [:]
        var changes: UInt64 = 0
    }

    /// Connections beyond which one has to go for every new one, together and of one address.
    private let most: Int
    private let mostPerAddress: Int
    /// Beyond `most`, while all are being answered: enough for who looks after the server.
    static let reserve = 64
    private let content = Mutex(Content())

    init(most: Int, perAddress: Int) {
        self.most = most
        mostPerAddress = perAddress
    }

    /// Takes a connection in; closes another one, or this one, where there is no room.
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
