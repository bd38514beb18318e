#if canImport(Glibc)
    import Glibc
#else
    import Darwin
#endif

/// A key of an object. It equals only the same bytes, whereas `String` also equals canonical equivalents.
package struct JSONKey: Hashable, Sendable {
    package let text: String

    package init(_ text: String) { self.text = text }

    package static func == (left: JSONKey, right: JSONKey) -> Bool {
        var (left, right) = (left.text, right.text)
        // A dictionary compares keys whose places collide, so long keys that begin alike must be compared fast: byte by
        // byte, that takes longer than everything else that is done with them.
        return left.withUTF8 { left in
            right.withUTF8 { right in
                guard left.count == right.count else { return false }
                guard let first = left.baseAddress, let second = right.baseAddress else { return true }
                return unsafe memcmp(first, second, left.count) == 0
            }
        }
    }

    package func hash(into hasher: inout Hasher) {
        // Seeded by the process, so that keys cannot be made to collide; by bytes, so that canonical equivalents do not.
        var text = text
        text.withUTF8 { bytes in unsafe hasher.combine(bytes: UnsafeRawBufferPointer(bytes)) }
        // As the standard library's strings do: no key continues into what is hashed after it.
        hasher.combine(0xFF as UInt8)
    }
}

/// Collects the members of an object while it is read, and finds an earlier equal key fast even in large objects.
struct JSONMemberList {
    private(set) var members: [JSONMember] = []
    var count: Int { members.count }
    /// The index of each member by key, filled once there are more members than are searched one by one.
    private var places: [JSONKey: Int] = [:]
    private static let searched = 8

    /// Returns the index of an equal key, if there is one.
    mutating func place(of key: String) -> Int? {
        guard members.count > Self.searched else {
            return members.firstIndex { JSONKey($0.key) == JSONKey(key) }
        }
        if places.isEmpty {
            for (place, member) in members.enumerated() { places[JSONKey(member.key)] = place }
        }
        return places[JSONKey(key)]
    }

    mutating func append(_ member: JSONMember) {
        if !places.isEmpty { places[JSONKey(member.key)] = members.count }
        members.append(member)
    }

    mutating func replace(at place: Int, by value: JSONValue) { members[place].value = value }
}
