import Synchronization

/// Lets the caller of a compilation interrupt it or give it up, because a large grammar takes seconds.
package enum GrammarWork {
    /// Returns whether what this task compiles is still wanted. It is called about every millisecond, and may wait.
    @TaskLocal package static var mayContinue: @Sendable () -> Bool = { true }

    private static let installed = Mutex<@Sendable () -> Bool>({ true })

    /// Sets what a process asks, beside `mayContinue`, on whatever thread compiles. Threads outside tasks cannot bind a
    /// second task-local value: the runtime of Swift 6 crashes.
    package static func install(_ mayContinue: @escaping @Sendable () -> Bool) {
        installed.withLock { $0 = mayContinue }
    }

    /// True if the compilation is still wanted.
    static var isWanted: Bool {
        let ask = installed.withLock { $0 }
        return mayContinue() && ask()
    }

    /// Checks that the compilation is still wanted.
    ///
    /// - Throws: an error of the kind `givenUp` if it is not.
    static func check() throws(GrammarError) {
        guard isWanted else { throw GrammarError(.givenUp, "the compilation was given up") }
    }

    /// Checks the same if `count`, which grows by one with each call, is a multiple of `interval`.
    static func check(_ count: Int, every interval: Int) throws(GrammarError) {
        if count.isMultiple(of: interval) { try check() }
    }
}
