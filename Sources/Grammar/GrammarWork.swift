/// Lets the caller of a compilation interrupt it or give it up, because a large grammar takes seconds.
package enum GrammarWork {
    /// Returns whether what this thread compiles is still wanted. It is called about every millisecond, and may wait.
    @TaskLocal package static var mayContinue: @Sendable () -> Bool = { true }

    /// Checks that the compilation is still wanted.
    ///
    /// - Throws: an error of the kind `givenUp` if it is not.
    static func check() throws(GrammarError) {
        guard mayContinue() else { throw GrammarError(.givenUp, "the compilation was given up") }
    }

    /// Checks the same if `count`, which grows by one with each call, is a multiple of `interval`.
    static func check(_ count: Int, every interval: Int) throws(GrammarError) {
        if count.isMultiple(of: interval) { try check() }
    }
}
