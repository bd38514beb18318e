package import Grammar

extension StepPlan.RequestGrammar: WireCodable {
    package static var empty: Self { Self(request: 0, source: .jsonObject) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&request)
        try wire.pass(&source)
    }
}

/// A grammar source is coded as a flag (does reasoning come first?), its kind, and the fields of that kind.
extension GrammarSource: WireCodable {
    package static var empty: GrammarSource { .jsonObject }

    private enum Kind: String {
        case jsonObject, jsonSchema, pattern, choice, ebnf, toolCalls
    }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        var (isAfterReasoning, source) = (false, self)
        while case .afterReasoning(let inner) = source { (isAfterReasoning, source) = (true, inner) }
        try wire.pass(&isAfterReasoning)
        try source.passForm(&wire)
        self = isAfterReasoning ? .afterReasoning(source) : source
    }

    private mutating func passForm(_ wire: inout Wire) throws(Wire.Failure) {
        var (kind, text, texts, calls) = (Kind.jsonObject, "", [String](), ToolCallSource.empty)
        switch self {
        case .jsonObject, .afterReasoning: break
        case .jsonSchema(let schema): (kind, text) = (.jsonSchema, schema)
        case .pattern(let pattern): (kind, text) = (.pattern, pattern)
        case .ebnf(let grammar): (kind, text) = (.ebnf, grammar)
        case .choice(let choices): (kind, texts) = (.choice, choices)
        case .toolCalls(let source): (kind, calls) = (.toolCalls, source)
        }
        try wire.pass(&kind)
        switch kind {
        case .jsonObject: self = .jsonObject
        case .jsonSchema:
            try wire.pass(&text)
            self = .jsonSchema(text)
        case .pattern:
            try wire.pass(&text)
            self = .pattern(text)
        case .ebnf:
            try wire.pass(&text)
            self = .ebnf(text)
        case .choice:
            try wire.pass(&texts)
            self = .choice(texts)
        case .toolCalls:
            try wire.pass(&calls)
            self = .toolCalls(calls)
        }
    }
}

extension ToolCallSource: WireCodable {
    package static var empty: Self { Self(tools: [], isRequired: false, allowsSeveral: false) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&markup)
        try wire.pass(&tools)
        try wire.pass(&isRequired)
        try wire.pass(&allowsSeveral)
        try wire.pass(&answerSchema)
    }
}

extension ToolCallSource.Tool: WireCodable {
    package static var empty: Self { Self(name: "", parameters: nil, isStrict: false) }

    package mutating func pass(_ wire: inout Wire) throws(Wire.Failure) {
        try wire.pass(&name)
        try wire.pass(&parameters)
        try wire.pass(&isStrict)
    }
}
