/// The table of all options of other engines that launch commands carry, for the commands that take their place. It is
/// parsed by `LaunchLine`, printed into `Docs/options.md`, and tested against both.
package struct CompatibilityTable: Sendable {
    /// The commands, each with the commands of other engines that it replaces.
    package enum Command: String, Sendable, CaseIterable {
        case serve
        case router
        case benchServing = "bench serving"
        case evalGSM8K = "eval gsm8k"

        package var replaces: String {
            switch self {
            case .serve: "`python -m sglang.launch_server`, `sglang serve`, `vllm serve`"
            case .router: "`python -m sglang_router.launch_router`, `smg launch`"
            case .benchServing: "`python -m sglang.bench_serving`, `vllm bench serve`"
            case .evalGSM8K: "`python -m sglang.test.few_shot_gsm8k`"
            }
        }
    }

    package let rows: [CompatibilityOption]
    private let byName: [String: CompatibilityOption]

    /// The table of a command; empty for a command that replaces none of another engine.
    package init(for path: [String]) {
        rows =
            switch Command(rawValue: path.joined(separator: " ")) {
            case .serve: Self.serve
            case .router: Self.router
            case .benchServing: Self.benchServing
            case .evalGSM8K: Self.evalGSM8K
            case nil: []
            }
        var byName: [String: CompatibilityOption] = [:]
        for row in rows {
            for name in row.names {
                let old = byName.updateValue(row, forKey: name)
                precondition(old == nil, "\(name) has two rows")
            }
        }
        self.byName = byName
    }

    /// Returns the row of this name. Underscores count as dashes, as in vLLM.
    package subscript(_ name: String) -> CompatibilityOption? {
        byName[name] ?? byName[CommandOptions.dashed(name)]
    }

    package var names: [String] { rows.flatMap(\.names) }

    /// Returns what is wrong with a value that other engines have for an option of this name; `nil` for other values.
    static func problem(with value: String, of option: CommandOptions.Option) -> String? {
        guard option.name == "--dtype", ["half", "float16", "fp16"].contains(value.lowercased()) else { return nil }
        let legal = ProfileChoice.allCases.map { "'\($0.rawValue)'" }.joined(separator: ", ")
        return
            "nothing here computes in FP16; leave it out, by which a checkpoint in F16 is computed in float32, or give "
            + "'bfloat16'; legal: \(legal)"
    }
}

// MARK: - Rows

extension CompatibilityTable {
    typealias Subject = CompatibilityOption.Subject
    typealias Legal = CompatibilityOption.Legal

    /// Returns rows of flags that select something without effect here.
    static func flags(_ subject: Subject, _ names: String...) -> [CompatibilityOption] {
        names.map { CompatibilityOption([$0], .none, .any, .noEffect(subject)) }
    }

    /// Returns rows of options with a value that selects something without effect here.
    static func options(_ subject: Subject, _ legal: Legal, _ names: String...) -> [CompatibilityOption] {
        names.map { CompatibilityOption([$0], .one, legal, .noEffect(subject)) }
    }

    /// Returns rows of options with one value or more that select something without effect here.
    static func lists(_ subject: Subject, _ legal: Legal, _ names: String...) -> [CompatibilityOption] {
        names.map { CompatibilityOption([$0], .oneOrMore, legal, .noEffect(subject)) }
    }

    /// Returns rows of flags that ask for what Braid always does.
    static func always(_ names: String..., because reason: String) -> [CompatibilityOption] {
        names.map { CompatibilityOption([$0], .none, .any, .always(reason)) }
    }

    /// Returns a row of an option that Braid has under another name.
    static func renamed(_ names: String..., to name: String, _ legal: Legal = .any) -> [CompatibilityOption] {
        [CompatibilityOption(names, .one, legal, .same(as: name) { [name, $0[0]] })]
    }

    /// Returns a row of a flag that Braid has in other words.
    static func flag(_ names: String..., means words: [String]) -> [CompatibilityOption] {
        [CompatibilityOption(names, .none, .any, .same(as: words.joined(separator: " ")) { _ in words })]
    }

    /// Returns rows of flags that Braid does not have.
    static func refused(flags names: String..., because reason: String) -> [CompatibilityOption] {
        names.map { CompatibilityOption([$0], .none, .any, .refused(neutral: [], reason)) }
    }

    /// Returns rows of options with values that Braid does not have.
    static func refused(
        _ names: String..., neutral: [String] = [], arity: CompatibilityOption.Arity = .one, because reason: String
    ) -> [CompatibilityOption] {
        names.map { CompatibilityOption([$0], arity, .any, .refused(neutral: neutral, reason)) }
    }

    /// Returns all rows. A sum of arrays would take the compiler minutes.
    static func joined(_ rows: [[CompatibilityOption]]) -> [CompatibilityOption] { Array(rows.joined()) }

    static let count = Legal.integer(0...Parsing.maxTokens)
}
