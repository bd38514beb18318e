import JSON

/// An option that launch commands of other engines carry and that Braid does not have under this name. What becomes of
/// each is in one table, `CompatibilityTable`; none is ignored without a word.
package struct CompatibilityOption: Sendable {
    /// The number of values that follow the name.
    package enum Arity: Sendable { case none, one, oneOrMore }

    /// The values that are legal.
    package enum Legal: Sendable {
        case any
        case oneOf([String])
        case integer(ClosedRange<Int>)
        case number(ClosedRange<Double>)
        case json
    }

    package enum Meaning: Sendable {
        /// The option selects something that does not exist here and cannot change an answer; the start names it.
        case noEffect(Subject)
        /// Braid always does what the option asks for.
        case always(String)
        /// The option means the same as options of Braid. The function receives the values and returns words of a
        /// command line, or throws `CommandError` about a value.
        case same(as: String, @Sendable ([String]) throws -> [String])
        /// The option asks for something that changes answers or service and that Braid does not have, unless its value
        /// is one of `neutral`.
        case refused(neutral: [String], String)
    }

    /// The kind of thing that an option without effect selects.
    package enum Subject: String, Sendable, CaseIterable {
        case kernel = "a GPU kernel or library"
        case graph = "a CUDA graph or compiler"
        case memory = "memory of a GPU, or offloading to and from it"
        case communication = "communication between GPUs or processes"
        case scheduling = "scheduling that changes no answer"
        case telemetry = "telemetry or logging of another engine"
        case connection = "connections of clients, and files of another HTTP server"
        case loading = "loading of models or tokenizers"
        case disaggregation = "transfers of disaggregated serving"
        case media = "images, sound and video, which requests cannot contain here"
        case adapters = "LoRA adapters, which are refused where they are given"
        case models = "models of other architectures"
        case drafting = "drafts by other methods than the checkpoint's next-token block"
        case features = "parts of answers that requests cannot ask for here"
        case routing = "rules of another router, or its access to a model"
        case client = "the client's data or output"
    }

    package let names: [String]
    package let arity: Arity
    package let legal: Legal
    package let meaning: Meaning

    package init(_ names: [String], _ arity: Arity, _ legal: Legal, _ meaning: Meaning) {
        self.names = names
        self.arity = arity
        self.legal = legal
        self.meaning = meaning
    }

    /// Returns what is wrong with a value; `nil` if it is legal.
    func problem(with value: String) -> String? {
        switch legal {
        case .any: return nil
        case .oneOf(let values):
            // vLLM writes names of backends in capitals, SGLang in small letters.
            if values.contains(where: { $0.lowercased() == value.lowercased() }) { return nil }
            return "'\(value)' is not legal; legal: \(values.joined(separator: ", "))"
        case .integer(let range):
            if (try? Parsing.count(range)(value)) != nil { return nil }
            return "'\(value)' is not a whole number between \(range.lowerBound) and \(range.upperBound)"
        case .number(let range):
            if let number = Double(value), range.contains(number) { return nil }
            return "'\(value)' is not a number between \(range.lowerBound) and \(range.upperBound)"
        case .json:
            do throws(JSONError) {
                _ = try JSONValue(parsing: Array(value.utf8), limits: .strict)
                return nil
            } catch {
                return "is not JSON: \(error)"
            }
        }
    }
}
