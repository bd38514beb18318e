import braid

/// The text of `Docs/options.md`, made of the compatibility table.
enum OptionsPage {
    static var text: String {
        var lines = [
            "# Options of other engines", "",
            """
            Launch commands of SGLang and vLLM start `braid` with the program's name replaced. Most of their options exist
            under the same name (`braid help serve`); this page lists all others. Underscores in names count as dashes, and
            unknown options are reported all at once, each with the nearest known name. This page is generated from the table
            that the program parses (`CompatibilityTable`); `BRAID_RECORD_OPTIONS=1` before
            `swift test -c release --filter CommandLineTests` writes it again. It has all options of SGLang 0.5.23 and vLLM
            0.33.0 (`Tests/Frozen/launch-flags.txt`), and some of earlier releases.

            As in Python's argparse, the beginning of a name is enough on the command line of any command, if no other option's
            name begins so: `--speculative-algo` is `--speculative-algorithm`. Where several do, they are listed. Files and
            variables have names in full. `--no-` before the name of a flag turns it off, as `=false` behind it does.

            Members of vLLM's options that take JSON may be given one by one: `--speculative-config.method mtp`.

            An option *without effect* selects something that does not exist here and that changes no answer. It is accepted,
            its values are checked, and the start names all of them in one line:
            `has no effect here: --attention-backend, …`.

            ## Configuration file and environment

            `braid serve` and `braid router` also read options from a file (`--config FILE`) and from the environment. A value
            of the command line replaces one of the environment, that one of the file, that the default. `--print-config`
            prints every option with its value and where it comes from, in the form of such a file.

            ```yaml
            # braid.yaml
            model-path: deepseek-ai/DeepSeek-V3.2
            tp-size: 8
            enable-dp-attention: true
            allowed-host: [a.example, b.example]
            ```

            The variable of an option has its name in capitals behind `BRAID_`: `BRAID_PAGE_SIZE=32` is `--page-size 32`. A second
            value of an option that may be repeated has a number: `BRAID_API_KEY_2`. The file is such YAML, with one option a
            line, or a JSON object. It may contain every option of the command line, also those below. `null` leaves an option
            out. An option that takes JSON may have a map, in braces or as indented lines; text of several lines, anchors and tags
            are refused.
            `SGLANG_PP_LAYER_PARTITION` and `VLLM_PP_LAYER_PARTITION` are read as `--pp-layer-partition`, and `VLLM_API_KEY`
            as `--api-key`.
            """,
        ]
        for command in CompatibilityTable.Command.allCases {
            lines += ["", "## `braid \(command.rawValue)`", "", "In place of \(command.replaces).", ""]
            lines += section(CompatibilityTable(for: command.rawValue.split(separator: " ").map(String.init)))
        }
        return lines.joined(separator: "\n") + "\n"
    }

    private static func section(_ table: CompatibilityTable) -> [String] {
        var lines = ["| option | values | here |", "|---|---|---|"]
        // Options of one kind share a line.
        var kinds: [(names: [String], rest: String)] = []
        for row in table.rows {
            guard let meaning = meaning(row) else { continue }
            let rest = "\(values(row)) | \(meaning)"
            if let index = kinds.firstIndex(where: { $0.rest == rest }) {
                kinds[index].names += row.names
            } else {
                kinds.append((row.names, rest))
            }
        }
        lines += kinds.map { "| `\($0.names.joined(separator: "`, `"))` | \($0.rest) |" }
        for subject in CompatibilityOption.Subject.allCases {
            let rows = table.rows.filter { if case .noEffect(subject) = $0.meaning { true } else { false } }
            guard !rows.isEmpty else { continue }
            lines += ["", "Without effect, because they concern \(subject.rawValue):", ""]
            let restricted = rows.filter { if case .any = $0.legal { false } else { true } }
            let free = rows.filter { if case .any = $0.legal { true } else { false } }
            lines += restricted.map { "- `\($0.names.joined(separator: "`, `"))`: \(values($0))" }
            if !free.isEmpty { lines.append("- " + free.flatMap(\.names).map { "`\($0)`" }.joined(separator: ", ")) }
        }
        return lines
    }

    /// Returns what an option means; `nil` for one without effect.
    private static func meaning(_ row: CompatibilityOption) -> String? {
        switch row.meaning {
        case .noEffect: nil
        case .always(let reason): "always so: \(reason)"
        case .same(let words, _): "the same as `\(words)`"
        case .refused(let neutral, let advice):
            "refused\(neutral.isEmpty ? "" : " unless `\(neutral.joined(separator: "`, `"))`"): \(advice)"
        }
    }

    private static func values(_ row: CompatibilityOption) -> String {
        let list = row.arity == .oneOrMore ? ", one or more" : ""
        switch row.legal {
        case .any: return row.arity == .none ? "" : "any" + list
        case .oneOf(let values): return values.joined(separator: ", ") + list
        case .integer(let range): return "\(range.lowerBound) to \(range.upperBound)" + list
        case .number(let range): return "\(range.lowerBound) to \(range.upperBound)" + list
        case .json: return "JSON" + list
        }
    }
}
