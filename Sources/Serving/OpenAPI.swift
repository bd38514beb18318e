import Hummingbird
import JSON

/// Describes the server's routes in the form of OpenAPI 3.1, from the table of routes and the tables of members.
enum OpenAPI {
    static let path = "/openapi.json"

    static func document(of routes: [RouteTable.Route]) -> JSONValue {
        var paths: [JSONMember] = []
        for route in routes {
            // A pattern's `**` is a name of the rest of the path.
            let path = route.pattern.replacing("**", with: "{id}")
            let member = JSONMember(route.method.rawValue.lowercased(), operation(route))
            if let place = paths.firstIndex(where: { $0.key == path }) {
                paths[place].value = .object((paths[place].value.object ?? []) + [member])
            } else {
                paths.append(JSONMember(path, .object([member])))
            }
        }
        return .fields([
            "openapi": .string("3.1.0"),
            "info": .fields(["title": .string("Braid"), "version": .string(ServerConfiguration.version)]),
            "paths": .object(paths),
            "components": .fields([
                "securitySchemes": .fields([
                    "key": .fields(["type": .string("http"), "scheme": .string("bearer")])
                ])
            ]),
            "security": .array([.fields([:]), .fields(["key": .array([])])]),
        ])
    }

    private static func operation(_ route: RouteTable.Route) -> JSONValue {
        let name =
            route.method.rawValue.lowercased()
            + route.pattern.map { $0.isLetter || $0.isNumber ? "\($0)" : "_" }
            .joined()
        var members = JSONMember.list(["operationId": .string(name)])
        if route.pattern.contains("**") {
            let parameter = JSONValue.fields([
                "name": .string("id"), "in": .string("path"), "required": .bool(true),
                "schema": .fields(["type": .string("string")]),
            ])
            members.append(JSONMember("parameters", .array([parameter])))
        }
        if let place = route.place {
            members.append(
                JSONMember(
                    "requestBody",
                    .fields([
                        "required": .bool(true),
                        "content": .fields(["application/json": .fields(["schema": schema(of: place)])]),
                    ])))
        }
        members.append(JSONMember("responses", responses(takesBody: route.place != nil)))
        return .object(members)
    }

    private static func responses(takesBody: Bool) -> JSONValue {
        var statuses = [("200", "The answer."), ("401", "The API key is missing or wrong."), ("403", "Not allowed.")]
        if takesBody {
            statuses += [
                ("400", "The request is at fault; the error says which member."), ("408", "The body came too slowly."),
                ("413", "The request is too large."), ("415", "The body is not JSON."),
                ("429", "The server is busy; try again."), ("500", "The generation failed."),
            ]
        }
        statuses += [("404", "There is no such model."), ("503", "The model is loading or the server ends.")]
        return .object(
            statuses.sorted { $0.0 < $1.0 }.map { JSONMember($0.0, .fields(["description": .string($0.1)])) })
    }

    /// Returns the schema of a request's body. Members that are refused are described too, with what to use instead.
    private static func schema(of place: FieldTable.Place) -> JSONValue {
        var properties: [JSONMember] = []
        for row in FieldTable.rows where row.places.contains(place) {
            for name in row.names.sorted() { properties.append(JSONMember(name, property(name, row.rule, place))) }
        }
        var members = JSONMember.list(["type": .string("object"), "properties": .object(properties)])
        if let required = required[place] {
            members.append(JSONMember("required", .array(required.map(JSONValue.string))))
        }
        return .object(members)
    }

    private static func property(_ name: String, _ rule: FieldTable.Rule, _ place: FieldTable.Place) -> JSONValue {
        switch rule {
        case .refused(let neutral, let advice):
            return .fields([
                "description": .string("Not supported: \(advice)."), "enum": .array(neutral + [.null]),
                "deprecated": .bool(true),
            ])
        case .harmless:
            return .fields(["description": .string("Accepted, and without effect on the answer.")])
        case .honoured:
            let own = types.filter { $0.names.contains(name) }.map(\.type)
            return own.isEmpty ? .fields([:]) : .fields(["type": .array((own + ["null"]).map(JSONValue.string))])
        }
    }

    /// The members without which a request cannot be answered.
    private static let required: [FieldTable.Place: [String]] = [
        .chat: ["messages"], .completion: ["prompt"], .responses: ["input"], .messages: ["messages", "max_tokens"],
        .countTokens: ["messages"], .detokenize: ["tokens"],
    ]

    /// The JSON types of members that have the same ones on all routes.
    private static let types: [(type: String, names: Set<String>)] = [
        ("string", ["model", "cache_salt", "instructions", "regex", "ebnf", "guided_regex", "guided_grammar"]),
        ("array", ["messages", "tools", "tokens", "stop_token_ids", "guided_choice", "include"]),
        ("array", ["sampling_params", "return_logprob", "logprob_start_len", "top_logprobs_num"]),
        (
            "object",
            [
                "stream_options", "logit_bias", "sampling_params", "response_format", "structured_outputs",
                "kv_transfer_params",
            ]
        ),
        (
            "boolean",
            [
                "stream", "parallel_tool_calls", "continue_final_message", "separate_reasoning", "echo", "ignore_eos",
                "skip_special_tokens", "add_special_tokens", "include_stop_str_in_output", "no_stop_trim",
                "enable_thinking", "return_logprob", "return_text_in_logprobs", "abort_all", "guided_json_object",
            ]
        ),
        (
            "integer",
            [
                "max_tokens", "max_completion_tokens", "max_output_tokens", "min_tokens", "top_k", "n", "seed",
                "top_logprobs", "top_logprobs_num", "logprob_start_len",
            ]
        ),
        (
            "number",
            ["temperature", "top_p", "min_p", "frequency_penalty", "presence_penalty", "repetition_penalty"]
        ),
    ]
}
