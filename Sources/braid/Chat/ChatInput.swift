import Foundation
import Synchronization

/// Puts lines together to messages: a backslash at the end of a line continues it, and a pasted text is one message,
/// which terminals mark by escape sequences ("bracketed paste").
package struct ChatLines {
    private static let pasteBegins = "\u{1B}[200~"
    private static let pasteEnds = "\u{1B}[201~"

    private var lines: [String] = []
    private var isPasting = false

    package init() {}

    /// True if a message has begun.
    package var hasBegun: Bool { !lines.isEmpty || isPasting }

    /// Adds a line.
    ///
    /// - Returns: The message that it completes; `nil` if more lines follow.
    package mutating func take(_ line: String) -> String? {
        var line = line
        while let mark = line.firstRange(of: isPasting ? Self.pasteEnds : Self.pasteBegins) {
            line.removeSubrange(mark)
            isPasting.toggle()
        }
        let continues = line.hasSuffix("\\") && !isPasting
        lines.append(continues ? String(line.dropLast()) : line)
        return continues || isPasting ? nil : finish()
    }

    /// Returns the message that has begun, at the end of the input.
    package mutating func finish() -> String? {
        guard hasBegun else { return nil }
        defer { (lines, isPasting) = ([], false) }
        return lines.joined(separator: "\n")
    }
}

/// Reads messages from standard input. Lines are edited by the terminal itself.
final class ChatInput: Sendable {
    /// True if someone types.
    let isTerminal = isatty(STDIN_FILENO) == 1
    /// True if prompts are shown.
    private let showsPrompts: Bool
    private let lines = Mutex(ChatLines())
    private let former: termios?

    /// The length from which a terminal cuts a line, in bytes.
    private static let maxTerminalLine = 4095

    init() {
        showsPrompts = isTerminal && isatty(STDOUT_FILENO) == 1
        var mode = termios()
        guard showsPrompts, unsafe tcgetattr(STDIN_FILENO, &mode) == 0 else {
            former = nil
            return
        }
        former = mode
        // The marks of a pasted text would be shown as ^[[200~.
        mode.c_lflag &= ~tcflag_t(ECHOCTL)
        _ = unsafe tcsetattr(STDIN_FILENO, TCSANOW, &mode)
        Self.write("\u{1B}[?2004h")
    }

    /// Gives the terminal back as it was.
    func end() {
        guard var former else { return }
        Self.write("\u{1B}[?2004l")
        _ = unsafe tcsetattr(STDIN_FILENO, TCSANOW, &former)
    }

    /// Returns the next message; `nil` at the end of the input, or after an interrupt.
    func next(_ interrupts: ChatInterrupts) async -> String? {
        await withCheckedContinuation { continuation in
            let answer = Mutex<CheckedContinuation<String?, Never>?>(continuation)
            @Sendable func resume(_ message: String?) {
                answer.withLock { answer in
                    defer { answer = nil }
                    return answer
                }?.resume(returning: message)
            }
            interrupts.handle {
                if self.showsPrompts { Self.write("\n") }
                resume(nil)
            }
            // Reading blocks, which tasks must not do.
            Thread.detachNewThread { resume(self.read()) }
        }
    }

    private func read() -> String? {
        while true {
            if showsPrompts { Self.write(lines.withLock { $0.hasBegun } ? "… " : "> ") }
            guard let line = readLine() else {
                if showsPrompts { Self.write("\n") }
                return lines.withLock { $0.finish() }
            }
            if isTerminal, line.utf8.count >= Self.maxTerminalLine {
                note(
                    "the terminal has cut this line after \(Self.maxTerminalLine) bytes, so it is left out; give a long text "
                        + "in several lines, or by a pipe")
                continue
            }
            if let message = lines.withLock({ $0.take(line) }) { return message }
        }
    }

    private static func write(_ text: String) {
        try? FileHandle.standardOutput.write(contentsOf: Data(text.utf8))
    }
}

/// Catches Ctrl-C and calls what it is to do at the moment.
final class ChatInterrupts: Sendable {
    private let action = Mutex<@Sendable () -> Void>({})

    /// Catches interrupts from now until the end of the program.
    init() {
        _ = signal(SIGINT, SIG_IGN)
        let source = DispatchSource.makeSignalSource(signal: SIGINT, queue: .global())
        // The handler keeps the source, and so itself.
        source.setEventHandler { [self] in
            withExtendedLifetime(source) { action.withLock { $0 }() }
        }
        source.resume()
    }

    /// Makes interrupts call `action` from now on.
    func handle(_ action: @escaping @Sendable () -> Void) { self.action.withLock { $0 = action } }
}
