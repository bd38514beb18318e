/// The element of DeepSeek's markup that holds tool calls; its name is what V3.2 and V4 write differently.
package enum DSMLBlock: String, Sendable, Hashable, CaseIterable {
    /// DeepSeek-V3.2's.
    case functionCalls = "function_calls"
    /// DeepSeek-V4's.
    case toolCalls = "tool_calls"

    /// The strings with which tool calls begin.
    var openings: [String] { ["<\(DSMLTag.mark)\(rawValue)", "<\(DSMLTag.mark)invoke"] }
}

/// One tag of DeepSeek's tool call markup, in which the mark `｜DSML｜` follows the angle bracket.
struct DSMLTag: Equatable {
    enum Kind {
        case openBlock, closeBlock, openInvoke, closeInvoke, openParameter, closeParameter
    }

    static let mark = "｜DSML｜"
    /// A tag may have this many bytes; anything longer is ordinary text.
    static let lengthLimit = 4096

    let kind: Kind
    /// The tag's range in the text, brackets included.
    let range: Range<Int>
    /// The tag's text between its name and `>`.
    let attributes: String

    private typealias Name = (text: [UInt8], kind: Kind)

    private static func names(_ block: DSMLBlock) -> [Name] {
        [
            (Array("<\(mark)\(block.rawValue)".utf8), .openBlock),
            (Array("</\(mark)\(block.rawValue)".utf8), .closeBlock),
            (Array("<\(mark)invoke".utf8), .openInvoke), (Array("</\(mark)invoke".utf8), .closeInvoke),
            (Array("<\(mark)parameter".utf8), .openParameter), (Array("</\(mark)parameter".utf8), .closeParameter),
        ]
    }

    private static let namesOfV32 = names(.functionCalls)
    private static let namesOfV4 = names(.toolCalls)

    enum Search {
        case found(DSMLTag)
        /// No tag begins before this index; one may begin there when more text arrives.
        case none(before: Int)
    }

    /// Returns the first tag in `bytes` that begins at `start` or later.
    static func first(in bytes: [UInt8], from start: Int, block: DSMLBlock) -> Search {
        let names = block == .functionCalls ? namesOfV32 : namesOfV4
        var at = start
        while let bracket = bytes[at...].firstIndex(of: UInt8(ascii: "<")) {
            switch tag(in: bytes, at: bracket, names) {
            case .whole(let tag): return .found(tag)
            case .beginning: return .none(before: bracket)
            case .other: at = bracket + 1
            }
        }
        return .none(before: bytes.count)
    }

    /// Returns whether a text, with which the output ends, begins with the mark of a tag or with a part of it that is
    /// more than brackets, which may be text.
    static func beginsWithMark(_ text: ArraySlice<UInt8>) -> Bool {
        guard UnfinishedMarkup.isCertain(text) else { return false }
        return ["<\(mark)", "</\(mark)"].contains { text.starts(with: $0.utf8) || $0.utf8.starts(with: text) }
    }

    private enum Reading {
        case whole(DSMLTag)
        /// The text ends before it is clear whether this is a tag.
        case beginning
        case other
    }

    private static func tag(in bytes: [UInt8], at start: Int, _ names: [Name]) -> Reading {
        let rest = bytes[start...]
        guard let name = names.first(where: { rest.starts(with: $0.text) }) else {
            return names.contains { $0.text.starts(with: rest) } ? .beginning : .other
        }
        let nameEnd = start + name.text.count
        guard nameEnd < bytes.count else { return .beginning }
        let next = bytes[nameEnd]
        guard next <= 0x20 || next == UInt8(ascii: ">") || next == UInt8(ascii: "/") else { return .other }
        var isQuoted = false
        for place in nameEnd..<min(start + lengthLimit, bytes.count) {
            if bytes[place] == UInt8(ascii: "\"") { isQuoted.toggle() }
            if bytes[place] == UInt8(ascii: ">"), !isQuoted {
                let attributes = String(decoding: bytes[nameEnd..<place], as: UTF8.self)
                return .whole(DSMLTag(kind: name.kind, range: start..<place + 1, attributes: attributes))
            }
        }
        return bytes.count < start + lengthLimit ? .beginning : .other
    }

    /// True if the tag closes itself: `<… />`.
    var isSelfClosing: Bool { attributes.last == "/" }

    /// Returns the value of `key="value"`; `nil` if it is missing or empty.
    func attribute(_ key: String) -> String? {
        let parts = attributes.utf8.split(separator: UInt8(ascii: "\""), omittingEmptySubsequences: false)
        // Keys and values alternate: ` name=`, `value`, ` string=`, `true`, ``.
        for place in stride(from: 0, to: parts.count - 2, by: 2) {
            let name = parts[place].drop { $0 <= 0x20 }
            guard name.elementsEqual((key + "=").utf8) else { continue }
            return parts[place + 1].isEmpty ? nil : String(parts[place + 1])
        }
        return nil
    }
}
