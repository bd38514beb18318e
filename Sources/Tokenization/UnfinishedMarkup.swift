/// Tells markup that a limit has cut from text.
enum UnfinishedMarkup {
    /// Returns whether a text that may begin a mark is more than the brackets `<` or `</` after line breaks. Brackets
    /// alone may as well begin a comparison or a tag of another language.
    static func isCertain(_ text: some Sequence<UInt8>) -> Bool {
        var rest = text.drop { $0 == UInt8(ascii: "\n") }.makeIterator()
        guard rest.next() == UInt8(ascii: "<"), let next = rest.next() else { return false }
        return next != UInt8(ascii: "/") || rest.next() != nil
    }
}
