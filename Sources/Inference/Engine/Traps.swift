import CThreads
import Foundation
import Synchronization

/// This object reports traps (such as failed preconditions) of threads, so that clients get an answer before the
/// process ends.
///
/// Swift cannot catch a trap, and memory may be damaged after it. But other threads still run: the signal handler
/// (CThreads) parks the thread that trapped and writes to a pipe, which a thread of this object reads in order to call
/// back. In any case the parked thread ends the process, or executes it anew, after `BRAID_TRAP_GRACE_SECONDS`; for
/// that it needs no lock and no other thread.
package final class Traps: Sendable {
    static let shared = Traps()
    private let state = Mutex(State())

    private struct State {
        var watched: [UInt64: @Sendable (_ signal: String) -> Void] = [:]
        var next: UInt64 = 1
    }

    private init() {
        let pipe = braid_traps_install()
        precondition(pipe >= 0, "traps cannot be watched: error \(errno)")
        let thread = Thread { [self] in
            ThreadName.current = "braid traps"
            while let trap = Self.read(pipe) {
                let callback = state.withLock { $0.watched[trap.token] }
                callback?(Self.name(of: trap.signal, at: trap.address))
            }
        }
        thread.start()
    }

    /// Runs `body`. If it traps, this thread stops forever, and `onTrap` is called on another one with the name of the
    /// signal.
    func watch(onTrap: @escaping @Sendable (_ signal: String) -> Void, while body: () -> Void) {
        let token = state.withLock { state in
            defer { state.next += 1 }
            state.watched[state.next] = onTrap
            return state.next
        }
        braid_traps_enter(token)
        body()
        braid_traps_leave()
        state.withLock { $0.watched[token] = nil }
    }

    /// Reports traps of all threads that do not run `watch`, too. Such a trap at first stops only its thread. This
    /// cannot be undone.
    func watchOtherThreads(onTrap: @escaping @Sendable (_ signal: String) -> Void) {
        let token = state.withLock { state in
            defer { state.next += 1 }
            state.watched[state.next] = onTrap
            return state.next
        }
        braid_traps_enter_others(token)
    }

    /// Determines whether the process executes itself anew after a trap, with its original arguments, instead of
    /// ending. New ranks would not suffice: they would use memory that may be damaged, beside a thread that may hold
    /// any lock.
    package static func setRestartsProcess(_ restarts: Bool) {
        unsafe braid_traps_restart_with(restarts ? CommandLine.unsafeArgv : nil)
    }

    /// Ends or executes the process anew, at once, as after the grace period of a trap. It takes no lock.
    package static func endProcess() -> Never { braid_traps_end() }

    /// Returns the path of the file that is mapped at an address; `nil` if there is none, or the system does not tell.
    private static func mappedFile(at address: UInt64) -> String? {
        guard address != 0, let maps = try? String(contentsOfFile: "/proc/self/maps", encoding: .utf8) else {
            return nil
        }
        // A line is "begin-end rights offset device inode path", in hexadecimal digits.
        for line in maps.split(separator: "\n") {
            let fields = line.split(separator: " ", maxSplits: 5, omittingEmptySubsequences: true)
            let bounds = fields[0].split(separator: "-").compactMap { UInt64($0, radix: 16) }
            guard bounds.count == 2, (bounds[0]..<bounds[1]).contains(address), fields.count == 6 else { continue }
            let path = fields[5].trimmingCharacters(in: .whitespaces)
            return path.hasPrefix("/") ? path : nil
        }
        return nil
    }

    private static func read(_ pipe: CInt) -> braid_trap? {
        var trap = braid_trap()
        while true {
            let count = unsafe Foundation.read(pipe, &trap, MemoryLayout<braid_trap>.size)
            if count == MemoryLayout<braid_trap>.size { return trap }
            if count >= 0 || errno != EINTR { return nil }
        }
    }

    /// Returns the name of a signal and, for SIGBUS, the mapped file whose page could not be read.
    private static func name(of signal: Int32, at address: UInt64) -> String {
        if signal == SIGBUS, let file = mappedFile(at: address) {
            return "SIGBUS: '\(file)' became shorter while it was in use, or its disk fails; restore it and start again"
        }
        let names = [
            SIGILL: "SIGILL", SIGTRAP: "SIGTRAP", SIGSEGV: "SIGSEGV", SIGBUS: "SIGBUS", SIGFPE: "SIGFPE",
            SIGABRT: "SIGABRT",
        ]
        return names[signal] ?? "signal \(signal)"
    }
}
