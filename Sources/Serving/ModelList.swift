import Foundation
package import Hummingbird
package import JSON

/// The answers of `/v1/models` and `/v1/models/{id}`, which the interfaces of OpenAI and of Anthropic both have: each client
/// gets its own form.
package enum ModelList {
    /// The number of models on a page of Anthropic's list, if a request gives none, and the most that it may give.
    private static let (usualCount, maxCount) = (20, 1000)

    /// Returns the answer to a request for all models.
    ///
    /// - Parameter models: The models in OpenAI's form.
    /// - Throws: an error that names the parameter of the query that is wrong.
    package static func response(_ models: [JSONValue], to request: Request) throws(RequestError) -> Response {
        guard AnthropicInterface.has(request) else {
            return .json(.fields(["object": .string("list"), "data": .array(models)]))
        }
        return .json(try page(of: models, request.uri.queryParameters))
    }

    /// Returns the answer to a request for one model.
    ///
    /// - Parameter model: The model in OpenAI's form.
    package static func response(model: JSONValue, to request: Request) -> Response {
        .json(AnthropicInterface.has(request) ? anthropic(model) : model)
    }

    /// Returns the models that follow `after_id`, or the last ones before `before_id`, at most `limit`.
    private static func page(of models: [JSONValue], _ query: Parameters) throws(RequestError) -> JSONValue {
        let count = try limit(query)
        let last = try place("before_id", query, models)
        let end = last ?? models.endIndex
        let start = try place("after_id", query, models).map { min($0 + 1, end) } ?? 0
        let all = models[start..<end]
        let page = last == nil ? all.prefix(count) : all.suffix(count)
        return .fields([
            "data": .array(page.map(anthropic)), "has_more": .bool(page.count < all.count),
            "first_id": page.first?["id"] ?? .null, "last_id": page.last?["id"] ?? .null,
        ])
    }

    private static func limit(_ query: Parameters) throws(RequestError) -> Int {
        guard let text = query.get("limit") else { return usualCount }
        guard let count = Int(text), (1...maxCount).contains(count) else {
            throw .invalid(
                "limit", "limit is '\(text.prefix(64))'; it must be a whole number from 1 to \(maxCount)")
        }
        return count
    }

    /// Returns the place of the model that a parameter of the query names; `nil` if the parameter is absent or empty.
    private static func place(
        _ name: String, _ query: Parameters, _ models: [JSONValue]
    ) throws(RequestError) -> Int? {
        guard let id = query.get(name), !id.isEmpty else { return nil }
        guard let place = models.firstIndex(where: { $0["id"]?.string == id }) else {
            throw .invalid(
                name, "\(name) is '\(id.prefix(256))', which is no model here; leave it out for the first page")
        }
        return place
    }

    /// Returns a model in Anthropic's form.
    private static func anthropic(_ model: JSONValue) -> JSONValue {
        let name = model["id"] ?? .null
        // A worker of a router may say anything; years have four digits.
        let created = min(max(model["created"]?.integer ?? 0, 0), 253_402_300_799)
        let context = model["max_model_len"]?.integer
        return .fields([
            "type": .string("model"), "id": name, "display_name": name,
            "created_at": .string(Date(timeIntervalSince1970: Double(created)).formatted(.iso8601)),
            "lifecycle": .string("active"), "deprecated_at": .null, "retires_at": .null, "line": .null,
            "capabilities": .null, "max_input_tokens": context.map { .integer($0) } ?? .null,
            // A prompt has at least one token.
            "max_tokens": context.map { .integer(max($0, 1) - 1) } ?? .null,
        ])
    }
}
