package import KVCache

/// A cache order is about entries of another process's cache: the first process wants them, or has them for it. A
/// `CacheReply` answers it.
package struct CacheOrder: Sendable, Equatable {
    /// The number of the order in its epoch.
    package var number: UInt64
    package var entries: [CacheEntries]
    /// The bytes of the entries, as `CacheStore.pack` makes them; empty if they are wanted.
    package var bytes: [UInt8]

    /// The largest number of bytes of entries in one order or reply.
    package static let maxBytes = 1 << 26

    package init(_ number: UInt64, _ entries: [CacheEntries], bytes: [UInt8] = []) {
        self.number = number
        self.entries = entries
        self.bytes = bytes
    }
}

/// A cache reply says that a cache order was carried out.
package struct CacheReply: Sendable, Equatable {
    /// The number of the order.
    package var number: UInt64
    /// The bytes of the entries that the order wanted; empty if it brought them.
    package var bytes: [UInt8]

    package init(_ number: UInt64, bytes: [UInt8] = []) {
        self.number = number
        self.bytes = bytes
    }
}

extension CacheStore {
    /// Carries out an order to send back entries.
    ///
    /// - Throws: `Wire.Failure` if this store does not keep them, or they are too many.
    func reply(toPack order: CacheOrder) throws(Wire.Failure) -> CacheReply {
        try check(order)
        var reply = CacheReply(order.number)
        guard order.bytes.isEmpty, pack(order.entries, into: &reply.bytes) else {
            throw Wire.Failure(description: "entries that are wanted of a process which does not keep them")
        }
        return reply
    }

    /// Carries out an order to write entries.
    ///
    /// - Throws: `Wire.Failure` if this store does not keep them, or there are not exactly as many bytes. Nothing is
    ///   written then.
    func reply(toPlace order: CacheOrder) throws(Wire.Failure) -> CacheReply {
        try check(order)
        guard unpack(order.bytes, as: order.entries) else {
            throw Wire.Failure(
                description: "\(order.bytes.count) bytes for entries of a process which does not keep as many")
        }
        return CacheReply(order.number)
    }

    private func check(_ order: CacheOrder) throws(Wire.Failure) {
        guard order.entries.allSatisfy({ format.has($0.set) }) else {
            throw Wire.Failure(description: "entries of key sets that there are not")
        }
        let bytes = format.bytes(of: order.entries)
        guard bytes <= CacheOrder.maxBytes else {
            throw Wire.Failure(description: "\(bytes) bytes of entries where the most is \(CacheOrder.maxBytes)")
        }
    }
}

extension CacheOrder: WireCodable {
    package static var empty: CacheOrder { CacheOrder(0, []) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&number)
        try wire.pass(&entries)
        try wire.pass(&bytes)
    }
}

extension CacheReply: WireCodable {
    package static var empty: CacheReply { CacheReply(0) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&number)
        try wire.pass(&bytes)
    }
}

extension CacheEntries: WireCodable {
    package static var empty: CacheEntries {
        CacheEntries([], of: KeySetID(layer: 0), in: CacheStore.PageList([]))
    }

    /// All numbers are sent as 32-bit integers: a cache has fewer entries and pages.
    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        var (layer, index, first) = (Int32(set.layer), Int32(set.index), Int32(pages.first))
        var sent = numbers.map { Int32($0) }
        try wire.pass(&layer)
        try wire.pass(&index)
        try wire.pass(&sent)
        try wire.pass(&pages.pages)
        try wire.pass(&first)
        guard layer >= 0, index >= 0, first >= 0, sent.first ?? 0 >= 0,
            zip(sent, sent.dropFirst()).allSatisfy({ $0 < $1 })
        else { throw Wire.Failure(description: "entries that are not in ascending order") }
        (set, numbers) = (KeySetID(layer: Int(layer), Int(index)), sent.map { Int($0) })
        pages.first = Int(first)
    }
}
