import Foundation

/// A program that was started with its output in a file.
final class ChildProcess {
    enum End: Equatable, CustomStringConvertible {
        case status(Int32)
        case signal(Int32)

        var description: String {
            switch self {
            case .status(let status): "exit status \(status)"
            case .signal(let signal): "signal \(signal)"
            }
        }
    }

    struct StartFailure: Error, CustomStringConvertible {
        let description: String
    }

    let pid: pid_t
    private let log: String
    private(set) var end: End?
    /// The most memory that was resident, in bytes; known after the end.
    private(set) var maxResidentBytes = 0

    /// Starts a program.
    ///
    /// - Parameters:
    ///   - arguments: the path of the program and its arguments, without NUL bytes.
    ///   - log: the file for standard output and standard error.
    init(_ arguments: [String], log: String) throws(StartFailure) {
        self.log = log
        var actions = unsafe posix_spawn_file_actions_t()
        unsafe posix_spawn_file_actions_init(&actions)
        defer { unsafe posix_spawn_file_actions_destroy(&actions) }
        unsafe posix_spawn_file_actions_addopen(&actions, 0, "/dev/null", O_RDONLY, 0)
        unsafe posix_spawn_file_actions_addopen(&actions, 1, log, O_WRONLY | O_CREAT | O_TRUNC, 0o600)
        unsafe posix_spawn_file_actions_adddup2(&actions, 1, 2)
        var words = unsafe arguments.map { unsafe strdup($0) } + [nil]
        defer { for index in arguments.indices { unsafe free(words[index]) } }
        var pid: pid_t = 0
        let failure = unsafe posix_spawn(&pid, arguments[0], &actions, nil, &words, environ)
        guard failure == 0 else { throw StartFailure(description: "\(arguments[0]) does not start: error \(failure)") }
        self.pid = pid
    }

    deinit {
        guard end == nil else { return }
        send(SIGKILL)
        _ = wait(5)
    }

    func send(_ signal: Int32) { _ = kill(pid, signal) }

    /// Waits at most so many seconds for the end, and returns it; `nil` if the program goes on.
    func wait(_ seconds: Double) -> End? {
        let deadline = ContinuousClock.now + .seconds(seconds)
        while end == nil {
            var status: Int32 = 0
            var usage = rusage()
            if unsafe wait4(pid, &status, WNOHANG, &usage) == pid {
                let signal = status & 0x7F
                end = signal == 0 ? .status(status >> 8 & 0xFF) : .signal(signal)
                maxResidentBytes = usage.ru_maxrss << 10
            } else if ContinuousClock.now >= deadline {
                return nil
            } else {
                usleep(2000)
            }
        }
        return end
    }

    /// The last bytes of what the program wrote.
    func output(_ count: Int = 2000) -> String {
        let bytes = FileManager.default.contents(atPath: log) ?? Data()
        return String(decoding: bytes.suffix(count), as: UTF8.self)
    }
}
