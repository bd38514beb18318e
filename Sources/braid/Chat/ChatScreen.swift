import Foundation

/// Prints answers on standard output. Reasoning is dim on a terminal; elsewhere, and with `NO_COLOR`, lines say where it
/// begins and ends.
struct ChatScreen {
    private enum Place { case start, reasoning, content }

    private let isColored: Bool
    private var place = Place.start
    private var endsLine = true

    init(environment: [String: String] = ProcessInfo.processInfo.environment) {
        // no-color.org: any value but an empty one.
        isColored =
            isatty(STDOUT_FILENO) == 1 && environment["NO_COLOR", default: ""].isEmpty && environment["TERM"] != "dumb"
    }

    mutating func showReasoning(_ text: String) throws {
        if text.isEmpty { return }
        if place != .reasoning { try write(isColored ? "\u{1B}[2m" : "(reasoning)\n") }
        place = .reasoning
        try show(text)
    }

    mutating func showContent(_ text: String) throws {
        if text.isEmpty { return }
        if place == .reasoning {
            if isColored { try write("\u{1B}[0m") }
            if !endsLine { try write("\n") }
            try write(isColored ? "\n" : "(answer)\n")
        }
        // The model's line breaks between reasoning and answer are replaced by this one.
        let text = place == .reasoning ? String(text.drop { $0.isNewline }) : text
        if text.isEmpty, place == .reasoning {
            endsLine = true
            place = .content
            return
        }
        place = .content
        try show(text)
    }

    /// Ends an answer.
    mutating func end() throws {
        if place == .reasoning, isColored { try write("\u{1B}[0m") }
        if place != .start, !endsLine { try write("\n") }
        (place, endsLine) = (.start, true)
    }

    private mutating func show(_ text: String) throws {
        endsLine = text.hasSuffix("\n")
        try write(text.printable)
    }

    private func write(_ text: String) throws {
        try FileHandle.standardOutput.write(contentsOf: Data(text.utf8))
    }
}
