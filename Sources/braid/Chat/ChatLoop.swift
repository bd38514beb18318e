import Foundation
import JSON

/// A command of a chat: a line that begins with a slash.
enum ChatCommand: Equatable {
    case stats, reset, help, exit
    case system(String?)
    /// `nil` asks how it is.
    case think(Bool?)

    static let list = """
        Commands: /stats what the last answer cost; /reset forgets the conversation; /system TEXT sets the system message; \
        /think on|off; /help; /exit. Ctrl-C stops an answer, Ctrl-D ends. A line that ends with a backslash continues.
        """

    /// Reads a line.
    ///
    /// - Returns: `nil` if the line is a message.
    /// - Throws: `CommandError` if it begins with a slash, but is no command.
    init?(_ line: String) throws {
        guard line.hasPrefix("/") else { return nil }
        let words = line.split(maxSplits: 1, whereSeparator: \.isWhitespace).map(String.init)
        let rest = words.count > 1 ? words[1].trimmingCharacters(in: .whitespacesAndNewlines) : ""
        switch (words[0], rest) {
        case ("/stats", ""): self = .stats
        case ("/reset", ""): self = .reset
        case ("/help", ""): self = .help
        case ("/exit", ""), ("/quit", ""): self = .exit
        case ("/system", let text): self = .system(text.isEmpty ? nil : text)
        case ("/think", ""): self = .think(nil)
        case ("/think", "on"): self = .think(true)
        case ("/think", "off"): self = .think(false)
        default:
            throw CommandError(
                "'\(line.printableLine)' is no command (/help lists them); a blank before it makes it a message")
        }
    }
}

/// Reads messages and commands until the input ends, and prints answers.
struct ChatLoop<Backend: ChatBackend> {
    private let backend: Backend
    private var session: ChatSession
    private var screen = ChatScreen()
    private let input = ChatInput()
    private let interrupts = ChatInterrupts()
    private var lastCost: String?

    init(_ backend: Backend, _ settings: ChatSession.Settings) {
        self.backend = backend
        session = ChatSession(model: backend.model, settings)
    }

    mutating func run() async throws {
        defer { input.end() }
        if input.isTerminal {
            let facts = await backend.facts()
            note("\(([backend.model.printableLine] + facts).joined(separator: ", ")); /help lists the commands")
        }
        while let line = await input.next(interrupts) {
            do {
                if let command = try ChatCommand(line) {
                    if command == .exit { return }
                    await execute(command)
                } else if !line.allSatisfy(\.isWhitespace) {
                    try await answer(line)
                }
            } catch {
                // A script must notice; someone who types can go on.
                guard input.isTerminal else { throw error }
                note("Error: \("\(error)".printableLine)")
            }
        }
    }

    private mutating func execute(_ command: ChatCommand) async {
        switch command {
        case .stats:
            let facts = await backend.facts()
            note(([lastCost ?? "there is no answer yet"] + facts).joined(separator: "; "))
        case .reset:
            session.reset()
            note("the conversation is forgotten")
        case .system(let text):
            session.settings.system = text
            note(text == nil ? "there is no system message now" : "the system message is set")
        case .think(let isOn):
            session.settings.thinking = isOn ?? session.settings.thinking
            note("thinking: \(session.settings.thinking.map { $0 ? "on" : "off" } ?? "the model's default")")
        case .help: note(ChatCommand.list)
        case .exit: break
        }
    }

    /// Asks, and prints the answer while it arrives. An interrupt stops the answer, which is kept as far as it got.
    private mutating func answer(_ text: String) async throws {
        let (backend, body, start) = (backend, session.body(asking: text), screen)
        let task = Task { () -> (ChatAnswer, ChatScreen, Result<Void, any Error>) in
            var (answer, screen) = (ChatAnswer(), start)
            let result: Result<Void, any Error>
            do {
                for try await event in backend.events(body) {
                    for piece in try answer.take(event) {
                        switch piece {
                        case .reasoning(let text): try screen.showReasoning(text)
                        case .content(let text): try screen.showContent(text)
                        }
                    }
                }
                result = .success(())
            } catch {
                result = .failure(error)
            }
            return (answer, screen, result)
        }
        let input = input
        interrupts.handle { [interrupts] in
            task.cancel()
            // The engine ends an answer at its next step; who does not want to wait for it ends the program.
            interrupts.handle {
                input.end()
                Foundation.exit(130)
            }
        }
        let (answer, screen, result) = await task.value
        self.screen = screen
        try self.screen.end()
        lastCost = answer.cost
        if task.isCancelled {
            note("stopped" + (answer.content.isEmpty ? "; the message is forgotten" : ""))
        } else {
            try result.get()
        }
        if !task.isCancelled || !answer.content.isEmpty { session.add(text, answer: answer.content) }
    }
}
