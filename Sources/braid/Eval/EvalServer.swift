package import JSON
import NIOCore
import NIOHTTP1

/// This client calls the routes of a server that evaluations use: `/tokenize` and SGLang's `/generate`.
package struct EvalServer: Sendable {
    private let client: HTTPClient

    package init(_ client: HTTPClient) { self.client = client }

    package enum Prompt: Sendable {
        case text(String)
        case tokens([Int])
    }

    /// Continues a prompt.
    ///
    /// - Parameters:
    ///   - stop: The texts that end the answer and are not part of it.
    ///   - temperature: The temperature of sampling; 0 takes the best token each time.
    package func complete(
        _ prompt: Prompt, maxNewTokens: Int, stop: [String] = [], temperature: Double = 0
    ) async throws -> Completion {
        var sampling = [
            JSONMember("temperature", .measured(temperature)), JSONMember("max_new_tokens", .integer(maxNewTokens)),
        ]
        if !stop.isEmpty { sampling.append(JSONMember("stop", .array(stop.map(JSONValue.string)))) }
        let body: [JSONMember] = [prompt.member, JSONMember("sampling_params", .object(sampling))]
        return try Completion(reading: await post("/generate", .object(body)))
    }

    /// Returns the natural logarithm of each token's probability after the tokens before it; `nil` for the first.
    package func logProbs(of tokens: [Int]) async throws -> [Double?] {
        let answer = try await post(
            "/generate",
            .object([
                Prompt.tokens(tokens).member,
                JSONMember(
                    "sampling_params", .fields(["temperature": .integer(0), "max_new_tokens": .integer(0)])),
                JSONMember("return_logprob", .bool(true)), JSONMember("logprob_start_len", .integer(0)),
            ]))
        return try readLogProbs(answer, of: tokens)
    }

    /// Returns the tokens of each text.
    ///
    /// - Parameter addingSpecialTokens: True if the beginning-of-text token comes first, where the tokenizer adds one.
    package func tokens(of texts: [String], addingSpecialTokens: Bool) async throws -> [[Int]] {
        let answer = try await post(
            "/tokenize",
            .fields([
                "prompt": .array(texts.map(JSONValue.string)), "add_special_tokens": .bool(addingSpecialTokens),
            ]))
        let lists = answer["tokens"]?.array?.compactMap { $0.array?.compactMap(\.integer) }
        guard let lists, lists.count == texts.count else {
            throw CommandError("/tokenize gave no lists of tokens for \(texts.count) texts")
        }
        return lists
    }

    /// Returns the text of tokens.
    package func text(of tokens: [Int]) async throws -> String {
        let answer = try await post("/detokenize", .fields(["tokens": .array(tokens.map(JSONValue.integer))]))
        guard let text = (answer["text"] ?? answer["prompt"])?.string else {
            throw CommandError("/detokenize gave no text")
        }
        return text
    }

    private func post(_ path: String, _ body: JSONValue) async throws -> JSONValue {
        let bytes = ByteBuffer(string: body.pythonText)
        let answer = try await client.exchange(.POST, path, body: bytes, into: HTTPClient.Answer()) {
            $0.status = $1
            try $0.append($2)
        }
        guard answer.status == 200 else {
            let message = answer.message
            throw CommandError("\(path): status \(answer.status)" + (message.isEmpty ? "" : ": \(message)"))
        }
        do {
            return try JSONValue(parsing: answer.body)
        } catch {
            throw CommandError("\(path): \(error)")
        }
    }
}

extension EvalServer.Prompt {
    fileprivate var member: JSONMember {
        switch self {
        case .text(let text): JSONMember("text", .string(text))
        case .tokens(let tokens): JSONMember("input_ids", .array(tokens.map(JSONValue.integer)))
        }
    }
}

/// A completion is an answer of `/generate`.
package struct Completion: Sendable, Equatable {
    package let text: String
    package let tokens: Int

    package init(text: String, tokens: Int) {
        self.text = text
        self.tokens = tokens
    }

    /// Reads a completion from an answer.
    ///
    /// - Throws: `CommandError` if the server reports an error, with its message, or the answer has another form.
    package init(reading answer: JSONValue) throws {
        if let error = answer["error"], !error.isNull { throw CommandError(serverMessage(of: error)) }
        guard let text = answer["text"]?.string, let meta = answer["meta_info"],
            let tokens = meta["completion_tokens"]?.integer, tokens >= 0
        else {
            throw CommandError(
                "/generate gave no text and meta_info.completion_tokens; is this a /generate of SGLang's shape?")
        }
        if let reason = meta["finish_reason"], reason["type"]?.string == "abort" {
            throw CommandError(reason["message"]?.string ?? "the server aborted the request")
        }
        self.init(text: text, tokens: tokens)
    }
}

/// Reads `meta_info.input_token_logprobs`, which has `[log-probability, token, text]` for each token of the prompt.
///
/// - Throws: `CommandError` unless the list has exactly these tokens, each but the first with a number.
package func readLogProbs(_ answer: JSONValue, of tokens: [Int]) throws -> [Double?] {
    if let error = answer["error"], !error.isNull { throw CommandError(serverMessage(of: error)) }
    guard let entries = answer["meta_info"]?["input_token_logprobs"]?.array else {
        throw CommandError("/generate gave no meta_info.input_token_logprobs; does the server score prompts?")
    }
    guard entries.count == tokens.count else {
        throw CommandError("/generate scored \(entries.count) tokens of \(tokens.count)")
    }
    return try entries.enumerated().map { index, entry in
        guard let entry = entry.array, entry.count >= 2, entry[1].integer == tokens[index] else {
            throw CommandError("/generate scored another token than the one sent at position \(index)")
        }
        if index == 0 { return nil }
        guard case .number(let number) = entry[0], number.double.isFinite, number.double <= 1e-3 else {
            throw CommandError("/generate gave no log-probability at position \(index)")
        }
        return number.double
    }
}
