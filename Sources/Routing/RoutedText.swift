package import JSON

/// The text of a request by which it is routed, as hashes of its blocks.
///
/// Two requests whose texts begin alike have the same first hashes: the hash of a block covers all bytes before it.
package struct RoutedText: Sendable, Equatable {
    /// The number of bytes of a block, which are 64 token ids.
    package static let blockBytes = 256
    /// Later blocks are not told apart: the index would spend its space, and others' time, on one request.
    package static let maxBlocks = 4096

    /// The hash of each whole block, up to `maxBlocks`, and all blocks before it.
    package private(set) var blocks: [UInt64] = []
    package private(set) var byteCount = 0
    /// The state of FNV-1a. Collisions cost a detour, never a wrong answer, so that no stronger hash is needed.
    private var state: UInt64 = 0xCBF2_9CE4_8422_2325

    /// Creates the empty text, of requests without a prompt.
    package init() {}

    /// Collects what becomes the prompt, in the order in which it does: a salt separates caches of tenants, tools and
    /// system prompts come first in every chat format, then the messages in their order.
    ///
    /// - Parameter body: the body of a request of any route, with any members.
    package init(of body: JSONValue) {
        for name in Self.members {
            guard let value = body[name], !value.isNull else { continue }
            append(name.utf8)
            append(value)
        }
    }

    private static let members = [
        "cache_salt", "tools", "system", "instructions", "messages", "input", "prompt", "text", "input_ids", "tokens",
    ]

    /// Appends a value; of a list every element, so that a longer list begins with the text of a shorter one.
    private mutating func append(_ value: JSONValue) {
        switch value {
        case .string(let text): append(text.utf8)
        case .number(let number):
            guard let token = number.integer else { return append(number.literal.utf8) }
            let id = UInt32(truncatingIfNeeded: token)
            for shift in [UInt32(0), 8, 16, 24] { append(byte: UInt8(truncatingIfNeeded: id >> shift)) }
        case .array(let elements):
            for element in elements {
                append(element)
                if case .number = element { continue }
                append(byte: 0)
            }
        case .null, .bool, .object: append(value.pythonBytes)
        }
    }

    private mutating func append(_ bytes: some Sequence<UInt8>) {
        for byte in bytes { append(byte: byte) }
    }

    private mutating func append(byte: UInt8) {
        state = (state ^ UInt64(byte)) &* 0x100_0000_01B3
        byteCount += 1
        if byteCount.isMultiple(of: Self.blockBytes), blocks.count < Self.maxBlocks { blocks.append(state) }
    }
}
