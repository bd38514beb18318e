package import Foundation
import JSON

extension Tokenizer {
    /// Reads `tokenizer.json` and, if it exists, `tokenizer_config.json` of a model directory.
    ///
    /// Every setting of `tokenizer.json` that would change tokens is either followed exactly or refused. `truncation`
    /// and `padding` are not used. `post_processor` only says whether a prompt begins with the beginning-of-sentence
    /// token, unless the tokenizer's class says so. Where neither it nor a `tokenizer_config.json` names that token,
    /// DeepSeek's tokens are taken if the vocabulary has them, and prompts begin with the first: these models need it.
    package convenience init(directory: URL) throws(TokenizerError) {
        let file = TokenizerFile(json: try ModelFile(directory, "tokenizer.json", sizeLimit: 256 << 20))
        var parts = try file.parts()
        let opening = try file.json.openingToken()
        let hasConfiguration = ModelFile.exists(directory, "tokenizer_config.json")
        if hasConfiguration {
            try parts.read(ModelFile(directory, "tokenizer_config.json", sizeLimit: 16 << 20))
        }
        if let template = try ModelFile.template(directory) { parts.chatTemplate = template }
        if let opening, let token = parts.vocabulary.id(ofLiteral: opening) {
            // If `tokenizer_config.json` names no token that begins a sentence, the post-processor's template does.
            parts.bosToken = parts.bosToken ?? token
            if token == parts.bosToken, !parts.classSaysBeginning { parts.addsBeginning = true }
        }
        if !hasConfiguration {
            parts.eosToken = parts.vocabulary.id(ofLiteral: ChatFormat.Mark.end)
            if parts.bosToken == nil, let token = parts.vocabulary.id(ofLiteral: ChatFormat.Mark.begin) {
                (parts.bosToken, parts.addsBeginning) = (token, true)
            }
        }
        self.init(parts)
    }
}

/// A JSON file of a model directory that creates the errors about it.
private struct ModelFile {
    let name: String
    let root: JSONValue

    init(_ directory: URL, _ name: String, sizeLimit: Int) throws(TokenizerError) {
        self.name = name
        let data = try Self.data(directory, name, sizeLimit: sizeLimit)
        do {
            root = try JSONValue(parsing: data)
        } catch {
            throw .invalid(file: name, place: "byte \(error.offset)", problem: error.problem)
        }
        guard root.object != nil else { throw invalid("the top", "an object is expected") }
    }

    /// Returns true if the name exists, even as a symbolic link without a target: downloads that are not complete leave such
    /// links, and without the file texts might get other tokens.
    static func exists(_ directory: URL, _ name: String) -> Bool {
        let path = directory.appendingPathComponent(name).path
        return (try? FileManager.default.attributesOfItem(atPath: path)) != nil
    }

    private static func data(_ directory: URL, _ name: String, sizeLimit: Int) throws(TokenizerError) -> Data {
        let url = directory.appendingPathComponent(name).resolvingSymlinksInPath()
        do {
            let attributes = try FileManager.default.attributesOfItem(atPath: url.path)
            guard attributes[.type] as? FileAttributeType == .typeRegular else {
                throw TokenizerError.unreadable(file: url.path, reason: "it is not a regular file")
            }
            guard let size = attributes[.size] as? Int, size <= sizeLimit else {
                throw TokenizerError.unreadable(file: url.path, reason: "it is larger than \(sizeLimit >> 20) MiB")
            }
            return try Data(contentsOf: url)
        } catch let error as TokenizerError {
            throw error
        } catch {
            throw .unreadable(file: url.path, reason: error.localizedDescription)
        }
    }

    /// A chat template may have this many bytes.
    static let maxTemplateBytes = 1 << 20

    /// Returns the chat template that is a file of its own; `nil` if there is none. As in transformers, it takes the place
    /// of the one in `tokenizer_config.json`.
    static func template(_ directory: URL) throws(TokenizerError) -> String? {
        let name = "chat_template.jinja"
        guard exists(directory, name) else { return nil }
        guard let text = String(data: try data(directory, name, sizeLimit: maxTemplateBytes), encoding: .utf8) else {
            throw .invalid(file: name, place: "the file", problem: "text in UTF-8 is expected")
        }
        return text
    }

    /// Returns the control token that the post-processor's template puts before a text, if any.
    ///
    /// - Throws: if there is a post-processor that is none, so that it cannot be told.
    func openingToken() throws(TokenizerError) -> String? {
        let place = "post_processor"
        guard let processor = root[place], !processor.isNull else { return nil }
        for step in processor["processors"]?.array ?? [processor] {
            guard let type = step["type"]?.string else { throw invalid(place, "an object with `type` is expected") }
            guard type == "TemplateProcessing" else { continue }
            guard let pieces = step["single"]?.array else { throw invalid(place + ".single", "an array is expected") }
            if let token = pieces.first?["SpecialToken"] {
                guard let text = token["id"]?.string else {
                    throw invalid(place + ".single[0].SpecialToken.id", "a string is expected")
                }
                return text
            }
        }
        return nil
    }

    /// Reads a value that is true or false; `usual` if there is none, or null.
    ///
    /// - Throws: for any other value: a text such as `"false"` is true to some software, and would change tokens.
    func flag(_ value: JSONValue?, _ place: String, default usual: Bool = false) throws(TokenizerError) -> Bool {
        guard let value, !value.isNull else { return usual }
        guard let flag = value.bool else { throw invalid(place, "true or false is expected") }
        return flag
    }

    func invalid(_ place: String, _ problem: String) -> TokenizerError {
        .invalid(file: name, place: place, problem: problem)
    }

    func unsupported(_ place: String, _ found: JSONValue?, supported: String) -> TokenizerError {
        let text = found?.pythonText ?? "missing"
        let short = text.count > 600 ? text.prefix(600) + "…" : text
        return .unsupported(file: name, place: place, found: short, supported: supported)
    }
}

extension Tokenizer.Parts {
    /// Reads the names of the sentence tokens and the chat template from `tokenizer_config.json`.
    fileprivate mutating func read(_ config: ModelFile) throws(TokenizerError) {
        bosToken = try sentenceToken("bos_token", config)
        eosToken = try sentenceToken("eos_token", config)
        padToken = try sentenceToken("pad_token", config)
        chatTemplate = try template(config)
        classSaysBeginning = Self.classesThatSayBeginning.contains(config.root["tokenizer_class"]?.string ?? "")
        addsBeginning = try config.flag(config.root["add_bos_token"], "add_bos_token", default: classSaysBeginning)
    }

    /// The classes of transformers whose argument `add_bos_token`, true by default, takes the place of what the
    /// post-processor says. Version 5 of transformers reads the post-processor alone; SGLang restores what these classes
    /// did before, since released checkpoints rely on it.
    private static let classesThatSayBeginning: Set = ["LlamaTokenizer", "LlamaTokenizerFast"]

    /// Returns the chat template: a text, or the template `default` of a list of templates with names, as transformers
    /// chooses. A list without it says as much about the model by its first template.
    private func template(_ config: ModelFile) throws(TokenizerError) -> String? {
        let key = "chat_template"
        guard let value = config.root[key], !value.isNull else { return nil }
        var templates: [(name: String, text: String)] = []
        for entry in value.array ?? [.object([JSONMember("name", .string("default")), JSONMember("template", value)])] {
            guard let name = entry["name"]?.string, let text = entry["template"]?.string else {
                throw config.invalid(key, "a text, or a list of objects with `name` and `template`, is expected")
            }
            guard text.utf8.count <= ModelFile.maxTemplateBytes else {
                throw config.invalid(
                    key, "the template '\(name.prefix(100))' is larger than \(ModelFile.maxTemplateBytes >> 20) MiB")
            }
            templates.append((name, text))
        }
        return (templates.first { $0.name == "default" } ?? templates.first)?.text
    }

    /// Reads a token given by its text, or by an object with its text as `content`.
    private func sentenceToken(_ key: String, _ config: ModelFile) throws(TokenizerError) -> Int32? {
        guard let value = config.root[key], !value.isNull else { return nil }
        guard let text = value.string ?? value["content"]?.string else {
            throw config.invalid(key, "a string, or an object with `content`, is expected")
        }
        guard let id = vocabulary.id(ofSpelling: text) else {
            throw config.invalid(key, "\(text) is no token of tokenizer.json")
        }
        return id
    }
}

/// Reads the parts of `tokenizer.json`.
private struct TokenizerFile {
    let json: ModelFile
    /// Every id must be smaller than this.
    private static let idLimit = 1 << 22
    /// A token may have this many bytes in the file.
    private static let lengthLimit = 1 << 16

    func parts() throws(TokenizerError) -> Tokenizer.Parts {
        let preTokenizer = try preTokenizer()
        try checkStages()
        let model = json.root["model"] ?? .null
        try checkModel(model)
        var vocabulary = try vocabulary(model["vocab"])
        let encoding = try encoding(merges: model["merges"], vocabulary)
        let added = try addedTokens(into: &vocabulary)
        return Tokenizer.Parts(
            vocabulary: vocabulary, preTokenizer: preTokenizer, encoding: encoding,
            ignoresMerges: try json.flag(model["ignore_merges"], "model.ignore_merges"),
            controlTokens: [false, true].map { normalized in
                ControlTokenMatcher(added.filter { $0.isNormalized == normalized }.map { ($0.text, $0.id) })
            },
            specialTokens: Set(added.lazy.filter(\.isSpecial).map(\.id)))
    }

    // MARK: Stages around the model

    private func checkStages() throws(TokenizerError) {
        let normalizer = json.root["normalizer"] ?? .null
        let isEmptySequence =
            normalizer["type"]?.string == "Sequence" && normalizer["normalizers"]?.array?.isEmpty == true
        guard normalizer.isNull || isEmptySequence else {
            throw json.unsupported("normalizer", normalizer, supported: "null or an empty Sequence")
        }
        guard json.root["decoder"]?["type"]?.string == "ByteLevel" else {
            throw json.unsupported("decoder", json.root["decoder"], supported: "ByteLevel")
        }
    }

    private func preTokenizer() throws(TokenizerError) -> PreTokenizer {
        let place = "pre_tokenizer"
        let value = json.root[place]
        guard value?["type"]?.string == "Sequence", var steps = value?["pretokenizers"]?.array,
            let last = steps.popLast(), last["type"]?.string == "ByteLevel", last["use_regex"]?.bool == false,
            last["add_prefix_space"]?.bool == false
        else {
            throw json.unsupported(
                place, value, supported: "a Sequence of Splits and a ByteLevel with add_prefix_space and use_regex off")
        }
        var patterns: [String] = []
        for step in steps {
            guard step["type"]?.string == "Split", let pattern = step["pattern"]?["Regex"]?.string,
                step["behavior"]?.string == "Isolated", try !json.flag(step["invert"], place + ".invert")
            else { throw json.unsupported(place, step, supported: "Split by Regex, Isolated, not inverted") }
            patterns.append(pattern)
        }
        let known = PreTokenizer.known.first { known in
            known.patterns.elementsEqual(patterns) { $0.utf8.elementsEqual($1.utf8) }
        }
        guard let known else {
            throw json.unsupported(
                place, .array(patterns.map(JSONValue.string)), supported: "the patterns of DeepSeek V3 and of GLM")
        }
        return known.scanner
    }

    // MARK: The model

    private func checkModel(_ model: JSONValue) throws(TokenizerError) {
        guard model["type"]?.string == "BPE" else {
            throw json.unsupported("model.type", model["type"], supported: "BPE")
        }
        for key in ["dropout", "unk_token", "continuing_subword_prefix", "end_of_word_suffix"] {
            let value = model[key] ?? .null
            guard value.isNull || value.string == "" else {
                throw json.unsupported("model.\(key)", value, supported: "null")
            }
        }
        guard try !json.flag(model["byte_fallback"], "model.byte_fallback") else {
            throw json.unsupported("model.byte_fallback", model["byte_fallback"], supported: "false")
        }
    }

    private func vocabulary(_ value: JSONValue?) throws(TokenizerError) -> Vocabulary {
        guard let members = value?.object else { throw json.invalid("model.vocab", "an object is expected") }
        guard members.count <= Self.idLimit else {
            throw json.invalid("model.vocab", "more than \(Self.idLimit) tokens")
        }
        var vocabulary = Vocabulary(capacity: members.count)
        for member in members {
            let place = "model.vocab[\(JSONValue.string(String(member.key.prefix(100))).pythonText)]"
            let id = try id(member.value, place)
            guard !vocabulary.contains(id) else { throw json.invalid(place, "id \(id) is used twice") }
            guard 1...Self.lengthLimit ~= member.key.utf8.count else {
                throw json.invalid(place, "a token must have 1 to \(Self.lengthLimit) bytes")
            }
            if let bytes = ByteAlphabet.bytes(of: member.key) {
                vocabulary.add(bytes: bytes, id: id)
            } else {
                vocabulary.add(literal: member.key, id: id)
            }
        }
        return vocabulary
    }

    private func id(_ value: JSONValue?, _ place: String) throws(TokenizerError) -> Int32 {
        guard let id = value?.integer, 0..<Self.idLimit ~= id else {
            throw json.invalid(place, "an id from 0 to \(Self.idLimit - 1) is expected")
        }
        return Int32(id)
    }

    private func encoding(
        merges value: JSONValue?, _ vocabulary: Vocabulary
    ) throws(TokenizerError) -> BytePairEncoding {
        guard let list = value?.array else { throw json.invalid("model.merges", "an array is expected") }
        guard list.count <= Self.idLimit else { throw json.invalid("model.merges", "more than \(Self.idLimit) merges") }
        var byteTokens: [Int32] = []
        for byte in UInt8.min...UInt8.max {
            guard let id = vocabulary.id(of: [byte], 0..<1) else {
                throw json.invalid("model.vocab", "no token for byte \(byte) (\(ByteAlphabet.spelling(of: [byte])))")
            }
            byteTokens.append(id)
        }
        var merges = PairTable(capacity: list.count)
        for (rank, entry) in list.enumerated() {
            let merge = try merge(entry, "model.merges[\(rank)]", vocabulary)
            // The last of equal pairs counts, as in the reference library.
            merges.set(merge.left, merge.right, to: UInt64(rank) << 32 | UInt64(merge.result))
        }
        return BytePairEncoding(byteTokens: byteTokens, merges: merges)
    }

    /// Reads one merge: `"a b"`, or `["a", "b"]` in newer files.
    private func merge(
        _ entry: JSONValue, _ place: @autoclosure () -> String, _ vocabulary: Vocabulary
    ) throws(TokenizerError) -> (left: Int32, right: Int32, result: Int32) {
        let pair: [String] =
            if let text = entry.string {
                text.split(separator: " ", omittingEmptySubsequences: false).map(String.init)
            } else {
                entry.array?.compactMap(\.string) ?? []
            }
        guard pair.count == 2, entry.array?.count ?? 2 == 2 else {
            throw json.invalid(place(), "a pair of tokens is expected")
        }
        var bytes: [UInt8] = []
        var ids: [Int32] = []
        for token in pair + [pair.joined()] {
            guard let spelled = ByteAlphabet.bytes(of: token), let id = vocabulary.id(of: spelled, spelled.indices)
            else {
                throw json.invalid(place(), "\(JSONValue.string(token).pythonText) is not in the vocabulary")
            }
            bytes = spelled
            ids.append(id)
        }
        guard bytes.count <= Self.lengthLimit else { throw json.invalid(place(), "the token is too long") }
        return (ids[0], ids[1], ids[2])
    }

    // MARK: Added tokens

    private struct AddedToken {
        let text: String
        let id: Int32
        let isSpecial: Bool
        let isNormalized: Bool
    }

    /// Reads `added_tokens` and adds them to the vocabulary, which may already contain them with the same id.
    private func addedTokens(into vocabulary: inout Vocabulary) throws(TokenizerError) -> [AddedToken] {
        guard let list = (json.root["added_tokens"] ?? .array([])).array else {
            throw json.invalid("added_tokens", "an array is expected")
        }
        var seen: Set<Int32> = []
        var tokens: [AddedToken] = []
        for (index, entry) in list.enumerated() {
            let place = "added_tokens[\(index)]"
            let id = try id(entry["id"], place + ".id")
            guard let text = entry["content"]?.string, 1...Self.lengthLimit ~= text.utf8.count else {
                throw json.invalid(place + ".content", "1 to \(Self.lengthLimit) bytes of text are expected")
            }
            for flag in ["single_word", "lstrip", "rstrip"] where try json.flag(entry[flag], place + "." + flag) {
                throw json.unsupported(place + "." + flag, entry[flag], supported: "false")
            }
            guard seen.insert(id).inserted else { throw json.invalid(place, "id \(id) is used twice") }
            if let known = vocabulary.id(ofSpelling: text), known != id {
                throw json.invalid(place, "\(text) already has id \(known)")
            }
            if let known = vocabulary.spelling(of: id), !known.utf8.elementsEqual(text.utf8) {
                throw json.invalid(place, "id \(id) is already the token \(known)")
            }
            if !vocabulary.isLiteral(id) { vocabulary.add(literal: text, id: id) }
            tokens.append(
                AddedToken(
                    text: text, id: id, isSpecial: try json.flag(entry["special"], place + ".special"),
                    isNormalized: try json.flag(entry["normalized"], place + ".normalized", default: true)))
        }
        return tokens
    }
}
