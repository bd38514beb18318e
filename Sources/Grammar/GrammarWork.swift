import Foundation

/// Lets the caller of a compilation interrupt it or give it up, because a large grammar takes seconds.
package enum GrammarWork {
    private final class Question {
        let mayContinue: () -> Bool
        init(_ mayContinue: @escaping () -> Bool) { self.mayContinue = mayContinue }
    }

    /// The key of a thread's question. A compilation stays on one thread; task-local values cannot be used, because the
    /// runtime of Swift 6 crashes when a function that does not suspend binds one beside others.
    private static let key = "braid grammar"

    /// Runs work on this thread, of which compilations end with an error of the kind `givenUp` once they are not wanted any
    /// more.
    ///
    /// - Parameter mayContinue: returns whether they are still wanted. It is called about every millisecond, and may wait.
    package static func asking<Result>(_ mayContinue: @escaping () -> Bool, _ work: () -> Result) -> Result {
        let thread = Thread.current.threadDictionary
        let before = thread[key]
        thread[key] = Question(mayContinue)
        defer { thread[key] = before }
        return work()
    }

    /// True if the compilation is still wanted.
    static var isWanted: Bool {
        (Thread.current.threadDictionary[key] as? Question)?.mayContinue() ?? true
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
