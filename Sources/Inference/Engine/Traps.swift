import CThreads
import Foundation
import Synchronization

/// Traps of ranks' threads, told to whoever can answer the clients before the process ends.
///
/// Swift cannot catch a trap, and nobody should go on with memory that may be damaged. But other threads still run: the
/// signal handler (CThreads) parks the thread that trapped and writes to a pipe, and the thread here reads it and calls
/// back. Whatever becomes of that, the parked thread ends the process, or makes it run itself anew, after
/// `BRAID_TRAP_GRACE_SECONDS`; it needs no lock and nobody else for that.
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
                callback?(Self.name(of: trap.signal))
            }
        }
        thread.start()
    }

    /// Runs `body`; if it traps, this thread stops for ever, and `onTrap` is called on another one.
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

    /// From now on traps of threads that `watch` does not run are told too, and stop only those threads at first. There
    /// is no way back.
    func watchOtherThreads(onTrap: @escaping @Sendable (_ signal: String) -> Void) {
        let token = state.withLock { state in
            defer { state.next += 1 }
            state.watched[state.next] = onTrap
            return state.next
        }
        braid_traps_enter_others(token)
    }

    /// Whether after a trap the process runs itself anew, with the arguments it was started with, instead of ending.
    /// New ranks would not do: they would live in memory that may be damaged, beside a thread that may hold any lock.
    package static func setRestartsProcess(_ restarts: Bool) {
        unsafe braid_traps_restart_with(restarts ? CommandLine.unsafeArgv : nil)
    }

    /// Does at once what is done when the time after a trap is over. Not stopped by locks, nor by anything else.
    package static func endProcess() -> Never { braid_traps_end() }

    private static func read(_ pipe: CInt) -> braid_trap? {
        var trap = braid_trap()
        while true {
            let count = unsafe Foundation.read(pipe, &trap, MemoryLayout<braid_trap>.size)
            if count == MemoryLayout<braid_trap>.size { return trap }
            if count >= 0 || errno != EINTR { return nil }
        }
    }

    private static func name(of signal: Int32) -> String {
        let names = [
            SIGILL: "SIGILL", SIGTRAP: "SIGTRAP", SIGSEGV: "SIGSEGV", SIGBUS: "SIGBUS", SIGFPE: "SIGFPE",
            SIGABRT: "SIGABRT",
        ]
        return names[signal] ?? "signal \(signal)"
    }
}
