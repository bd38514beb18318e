import JSON

/// The rules for every member of a request that OpenAI, SGLang or vLLM define: it is honoured, cannot change the
/// answer, or is refused by name. None of these is silently ignored; members that no interface defines are.
struct FieldTable: Sendable {
    /// The places of members: the routes, and objects within their requests.
    enum Place: String, Sendable, CaseIterable {
        case chat, message, completion, generate, sampling, tokenize, detokenize
        case streamOptions = "stream_options"
        /// The member `thinking` of all routes but Anthropic's.
        case thinking
        /// `/v1/messages`, the blocks of its messages, its tools, its members `thinking` and `output_config`, and
        /// `/v1/messages/count_tokens`.
        case messages, messagesBlock, messagesTool, messagesThinking, messagesOutput, countTokens
        /// `/v1/responses`, the items of its `input`, and its members `text` and `reasoning`.
        case responses, responsesItem, responsesText, responsesReasoning
        case transferParams = "kv_transfer_params"
        case abort
    }

    enum Rule: Sendable {
        /// The route reads the member.
        case honoured
        /// The member is accepted and cannot change the answer.
        case harmless
        /// The member asks for something that is not supported, unless its value is `null` or one of `neutral`.
        case refused(neutral: [JSONValue], String)
    }

    struct Row: Sendable {
        let places: [Place]
        let rule: Rule
        let names: [String]
    }

    /// The rule for each name.
    private let rules: [JSONKey: Rule]
    private let refusesUnknown: Bool

    private init(_ place: Place) {
        var rules: [JSONKey: Rule] = [:]
        for row in Self.rows where row.places.contains(place) {
            for name in row.names {
                let old = rules.updateValue(row.rule, forKey: JSONKey(name))
                precondition(old == nil, "'\(name)' has two rules in \(place.rawValue)")
            }
        }
        self.rules = rules
        // SGLang refuses unknown sampling parameters too, since a misnamed one would have no effect.
        refusesUnknown = place == .sampling
    }

    private static let tables = Dictionary(uniqueKeysWithValues: Place.allCases.map { ($0, FieldTable($0)) })

    /// Checks the members of an object.
    ///
    /// - Throws: an error about the first member, in the request's order, that is refused.
    static func check(_ fields: RequestFields, at place: Place) throws(RequestError) {
        guard let table = tables[place] else { return }
        for member in fields.members { try table.check(member, fields) }
    }

    private func check(_ member: JSONMember, _ fields: RequestFields) throws(RequestError) {
        let path = fields.path(of: member.key)
        switch rules[JSONKey(member.key)] {
        case .honoured, .harmless: break
        case .refused(let neutral, let advice):
            guard !member.value.isNull, !neutral.contains(where: { $0.isAlike(member.value) }) else { return }
            throw .invalid(path, "\(path) is not supported: \(advice)", code: "unsupported_parameter")
        case nil:
            guard refusesUnknown, !member.value.isNull else { return }
            throw .invalid(
                path, "\(path.quotedForMessage) is no sampling parameter of this interface", code: "unknown_parameter")
        }
    }
}

extension JSONValue {
    /// Returns whether two values are equal, numbers by their value.
    fileprivate func isAlike(_ other: JSONValue) -> Bool {
        if let own = double, let others = other.double { return own == others }
        return self == other
    }
}
