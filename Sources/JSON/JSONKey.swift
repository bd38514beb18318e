/// A key of an object. It equals only the same bytes, whereas `String` also equals canonical equivalents.
package struct JSONKey: Hashable, Sendable {
    package let text: String

    package init(_ text: String) { self.text = text }

    package static func == (left: JSONKey, right: JSONKey) -> Bool {
        left.text.utf8.count == right.text.utf8.count && left.text.utf8.elementsEqual(right.text.utf8)
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
            return members.firstIndex { $0.key.utf8.elementsEqual(key.utf8) }
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
