import ArgumentParser

/// These options control speculative decoding, with the names that users of other engines know.
struct SpeculationOptions: ParsableArguments, Sendable {
    enum Algorithm: String, CaseIterable, ExpressibleByArgument {
        case nextToken = "NEXTN"
        case eagle = "EAGLE"
    }

    @Option(
        name: .customLong("speculative-algorithm"),
        help: """
            NEXTN, or EAGLE, which means the same: the checkpoint's next-token block drafts tokens, and the model \
            computes them together with the next one. The text does not change.
            """)
    var algorithm: Algorithm?

    @Option(
        name: .customLong("speculative-num-steps"), help: "How many tokens to draft each time; default: 2.",
        transform: Parsing.count(0...1024))
    var steps: Int?

    @Option(
        name: .customLong("speculative-eagle-topk"),
        help: ArgumentHelp("Drafts beside each other: only 1 is legal.", visibility: .hidden),
        transform: Parsing.count(0...1024))
    var branches: Int?

    @Option(
        name: .customLong("speculative-num-draft-tokens"),
        help: ArgumentHelp("Rows computed each time: --speculative-num-steps and 1.", visibility: .hidden),
        transform: Parsing.count(0...1024))
    var rows: Int?

    /// True to load the next-token block.
    var isOn: Bool { algorithm != nil }

    /// The number of tokens to draft in each step.
    var drafts: Int { isOn ? steps ?? Self.usualSteps : 0 }

    private static let usualSteps = 2

    func validate() throws {
        if !isOn, steps != nil || branches != nil || rows != nil {
            throw ValidationError(
                "--speculative-num-steps and its like need --speculative-algorithm; legal values: NEXTN, EAGLE")
        }
        if let steps, steps < 1 {
            throw ValidationError(
                "--speculative-num-steps: \(steps) is less than 1; leave out --speculative-algorithm to draft nothing")
        }
        if let branches, branches != 1 {
            throw ValidationError(
                "--speculative-eagle-topk: \(branches) is not 1; drafts follow one another here, none are side by side"
            )
        }
        if let rows, rows != drafts + 1 {
            throw ValidationError(
                "--speculative-num-draft-tokens: \(rows) is not \(drafts + 1), which is --speculative-num-steps "
                    + "(\(drafts)) drafts and the token before them")
        }
    }
}
