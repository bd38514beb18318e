/// The beginning of an assistant's answer that the model is to continue, divided into reasoning and text.
///
/// Clients send reasoning apart, or within the content, as the model writes it: with `</think>` at its end, and perhaps
/// with `<think>` at its beginning. An earlier answer is rendered without its reasoning; the last one needs it, because
/// the model goes on from there.
struct ContinuedAnswer {
    /// The reasoning that has ended; `nil` if the content has no end of it.
    var reasoning: String?
    /// The text after the reasoning. Without reasoning, it is text or unfinished reasoning.
    var text: String
    /// True if the message begins with `<think>`, which is no part of `reasoning` and `text`.
    var hasOpening: Bool

    private typealias Mark = ChatFormat.Mark

    /// - Parameter cutsAtLast: whether the last `</think>` of a content ends its reasoning, rather than the first.
    init(_ message: ChatMessage, cutsAtLast: Bool = false) {
        if let own = message.reasoning, !own.isEmpty {
            let opened = Self.withoutOpening(own)
            (reasoning, text, hasOpening) = (opened ?? own, message.content, opened != nil)
            return
        }
        let opened = Self.withoutOpening(message.content)
        hasOpening = opened != nil
        (reasoning, text) = Self.parts(of: opened ?? message.content, cutsAtLast: cutsAtLast)
    }

    /// Returns the reasoning and the answer in a content, which a `</think>` divides.
    static func parts(of content: String, cutsAtLast: Bool) -> (reasoning: String?, answer: String) {
        let bytes = Array(content.utf8)
        let mark = Array(Mark.thinkEnd.utf8)
        let places = bytes.indices.lazy.filter { bytes[$0...].starts(with: mark) }
        guard let place = cutsAtLast ? places.last : places.first else { return (nil, content) }
        return (
            String(decoding: bytes[..<place], as: UTF8.self),
            String(decoding: bytes[(place + mark.count)...], as: UTF8.self)
        )
    }

    /// Returns the text behind a `<think>` with which a text begins; `nil` if it begins with something else.
    private static func withoutOpening(_ text: String) -> String? {
        let inner = text.utf8.drop(while: \.isBlank)
        guard inner.starts(with: Mark.think.utf8) else { return nil }
        return String(decoding: inner.dropFirst(Mark.think.utf8.count), as: UTF8.self)
    }
}

extension ChatPrompt {
    /// Appends, behind `<think>`, the beginning of an answer that the model continues. The model goes on reasoning unless
    /// the message has an end of its reasoning.
    mutating func appendInReasoning(_ answer: ContinuedAnswer) {
        if let reasoning = answer.reasoning {
            text(reasoning)
            template(ChatFormat.Mark.thinkEnd)
        }
        text(answer.text)
        startsInReasoning = answer.reasoning == nil
    }
}
