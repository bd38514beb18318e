import Foundation

/// Lets the caller of a compilation interrupt it or give it up, because a large grammar takes seconds.
package enum GrammarWork {
    private final class Question {
        let mayContinue: () -> Bool
        init(_ mayContinue: @escaping () -> Bool) { self.mayContinue = mayContinue }
    }

    private final class Account {
        var spent = 0
    }

    /// The keys of a thread's question and of the account of its compilation. A compilation stays on one thread;
    /// task-local values cannot be used, because the runtime of Swift 6 crashes when a function that does not suspend
    /// binds one beside others.
    private static let key = "braid grammar"
    private static let accountKey = "braid grammar account"

    /// All automata of a grammar together may take this many steps to make, which bounds the time of schemas with many
    /// patterns; each has a bound of its own too.
    package static let maxSteps = 4_000_000
    /// About a millisecond of steps.
    package static let slice = 4096

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

    // MARK: - Steps

    /// Compiles a grammar, whose steps are counted from 0.
    static func counting<Compiled>(_ compile: () throws(GrammarError) -> Compiled) throws(GrammarError) -> Compiled {
        let thread = Thread.current.threadDictionary
        let before = thread[accountKey]
        thread[accountKey] = Account()
        defer { thread[accountKey] = before }
        return try compile()
    }

    /// Counts steps of the grammar that this thread compiles, and asks at each slice of them whether it is still wanted.
    ///
    /// - Throws: an error if it is not, or if the grammar has taken more than `maxSteps`.
    static func spend(_ steps: Int) throws(GrammarError) {
        guard let account = Thread.current.threadDictionary[accountKey] as? Account else { return try check() }
        let before = account.spent
        account.spent += steps
        if account.spent / slice != before / slice { try check() }
        guard account.spent <= maxSteps else {
            throw GrammarError(.tooLarge, "the patterns take too long to compile together; use fewer, or simpler ones")
        }
    }
}
