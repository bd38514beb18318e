import Inference

/// The configuration of the server: its address, who may use it, and its limits on requests and connections.
package struct ServerConfiguration: Sendable, Equatable {
    /// The address to listen on. Only clients on the same machine can reach the default.
    package var host = "127.0.0.1"
    /// The port to listen on; 0 lets the system choose one.
    package var port = 30000
    /// The API keys of which every route requires one but `/health` and the files of the page; none are required if there
    /// are none.
    package var apiKeys: [String] = []
    /// The name that requests give as `model`, and answers have.
    package var servedModelName: String
    /// Further names that requests may give.
    package var otherModelNames: [String] = []
    /// The description of the model for routers and operators.
    package var model = ServedModel()
    /// The origins whose web pages may use this server, such as `https://app.example`; `*` allows all pages.
    package var corsOrigins: [String] = []
    /// True if `/ready`, `/ping` and `/metrics` need no API key.
    package var opensMonitoring = false
    /// True if `/` is a page to chat with the model and to watch the ranks.
    package var hasPage = true
    /// The drawing of the ranks that the page shows.
    package var drawing: LayoutDrawing?
    package var requests = RequestLimits()
    /// The maximum size of a request's body in bytes. Larger bodies are refused with 413.
    package var maxBodyBytes = 32 << 20
    /// The maximum number of JSON values in a body, member names included. Each token id of a prompt is a value.
    package var maxBodyValues = 4 << 20
    /// The bytes for all requests being read and answers being collected.
    package var requestMemory = MemoryBudget.usualTotal
    /// The maximum size of all header fields of a request together, in bytes.
    package var maxHeaderBytes = 16 << 10
    package var maxHeaderCount = 100
    /// The number of connections beyond which idle ones are closed to make room for new ones.
    package var maxConnections = 4096
    /// The number of connections from one address beyond which its idle ones are closed.
    package var maxConnectionsPerAddress = 3072
    /// The names by which clients may address this server besides its own and `localhost`; `*` allows any. They are
    /// checked only if there is no API key.
    package var allowedHosts: [String] = []
    /// True if each request is a line of the log.
    package var logsAccess = false
    /// The time within which the whole body of a request must arrive.
    package var bodyTimeout: Duration = .seconds(60)
    /// The time after which a connection is closed if no request on it is being answered, even if a header is arriving.
    package var idleTimeout: Duration = .seconds(75)
    /// The time after which a client is disconnected that reads nothing of its answers.
    package var writeTimeout: Duration = .seconds(120)
    /// The time that the engine has to generate the token of `/health_generate`.
    package var healthTimeout: Duration = .seconds(20)
    /// The time after which a stream without an event sends a comment, so that proxies do not take it for dead.
    package var keepAliveInterval: Duration = .seconds(15)
    /// The time that running requests have to end after the first signal to stop.
    package var drainTimeout: Duration = .seconds(60)

    /// The version of the program, which `/version` and `--version` tell and `CHANGELOG.md` describes.
    package static let version = "0.1.0"

    package init(servedModelName: String) {
        self.servedModelName = servedModelName
    }

    /// Returns the problems of this configuration, each with what to do about it.
    package func validate() -> [String] {
        var problems = requests.validate()
        if host.isEmpty { problems.append("--host is empty; use 127.0.0.1 for this machine only, 0.0.0.0 for all") }
        if !(0...65535).contains(port) {
            problems.append("--port is \(port); it must be in 0...65535, for example 30000")
        }
        for origin in corsOrigins where origin != "*" && !Self.isOrigin(origin) {
            problems.append(
                "--cors-allow-origin: '\(origin)' is no origin; write one such as https://app.example, or *")
        }
        if modelNames.contains("") { problems.append("--served-model-name is empty; give the model a name") }
        if apiKeys.contains("") { problems.append("--api-key is empty; leave it out to ask for no key") }
        if !apiKeys.joined().utf8.allSatisfy({ (0x21...0x7E).contains($0) }) {
            problems.append("--api-key has characters a header cannot carry; use visible ASCII without spaces")
        }
        let sizes = [
            ("the limit of bytes of a body", maxBodyBytes, 1024),
            ("the limit of values of a body", maxBodyValues, 1024),
            ("the limit of bytes of a header", maxHeaderBytes, 1024),
            ("the limit of fields of a header", maxHeaderCount, 16),
            ("the limit of connections", maxConnections, 1),
            ("the limit of connections from an address", maxConnectionsPerAddress, 1),
        ]
        for (name, value, least) in sizes where value < least {
            problems.append("\(name) is \(value); the least is \(least)")
        }
        let times = [
            ("the time for a body", bodyTimeout), ("the time of an idle connection", idleTimeout),
            ("the time of a client that reads nothing", writeTimeout), ("the keep-alive interval", keepAliveInterval),
            ("the time of /health_generate", healthTimeout),
        ]
        for (name, value) in times where value <= .zero {
            problems.append("\(name) is \(value); it must be more than 0 seconds")
        }
        if drainTimeout < .zero { problems.append("--drain-timeout is \(drainTimeout); the least is 0 seconds") }
        return problems
    }
}

extension ServerConfiguration {
    /// The names that requests may give as `model`, of which answers have the first.
    package var modelNames: [String] { [servedModelName] + otherModelNames }

    /// True if only programs of this machine can connect.
    package var isLocal: Bool { Loopback.contains(host) }

    /// Returns whether a text is an origin as browsers write it: a scheme and a host, perhaps with a port.
    private static func isOrigin(_ text: String) -> Bool {
        guard let mark = text.firstRange(of: "://"), text.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) else {
            return false
        }
        let host = text[mark.upperBound...]
        return mark.lowerBound > text.startIndex && !host.isEmpty && !host.contains("/")
    }
}

/// A description of the served model for routers, which show and compare it.
package struct ServedModel: Sendable, Equatable {
    /// The directory of the checkpoint; empty if there is none.
    package var path = ""
    /// `model_type` of the checkpoint's `config.json`.
    package var type: String?
    /// `architectures` of the checkpoint's `config.json`.
    package var architectures: [String] = []

    package init(path: String = "", type: String? = nil, architectures: [String] = []) {
        self.path = path
        self.type = type
        self.architectures = architectures
    }
}

/// The limits of a single request, which are checked before anything is queued.
package struct RequestLimits: Sendable, Equatable {
    /// The maximum of `n`, the number of choices for one prompt.
    package var maxChoices = 128
    /// The maximum of the number of prompts times the number of choices of one request.
    package var maxSequences = 1024
    /// The maximum of `top_logprobs`; the engine may allow fewer.
    package var maxTopLogProbs = 20
    package var maxStopStrings = 16
    /// The maximum size of one stop string in bytes (UTF-8). That much text may have to be held back while streaming.
    package var maxStopStringBytes = 1024
    package var maxStopTokens = 1024
    package var maxLogitBiases = 4096
    /// The maximum size of `cache_salt` in bytes (UTF-8).
    package var maxCacheSaltBytes = 256

    package init() {}

    /// Returns the maximum of `top_logprobs` where an engine serves the requests.
    func maxTopLogProbs(with engine: EngineLimits) -> Int { min(maxTopLogProbs, engine.maxTopLogProbs) }

    func validate() -> [String] {
        let counts = [
            ("the limit of n", maxChoices, 1), ("the limit of prompts times n", maxSequences, 1),
            ("--max-logprobs", maxTopLogProbs, 0), ("the limit of stop strings", maxStopStrings, 0),
            ("the limit of bytes of a stop string", maxStopStringBytes, 1),
            ("the limit of stop tokens", maxStopTokens, 0), ("the limit of biases", maxLogitBiases, 0),
            ("the limit of bytes of cache_salt", maxCacheSaltBytes, 1),
        ]
        return counts.compactMap { name, value, least in
            value < least ? "\(name) is \(value); the least is \(least)" : nil
        }
    }
}

/// The sampling parameters that a model's `generation_config.json` recommends, for requests that do not give them.
package struct SamplingDefaults: Sendable, Equatable {
    package var temperature: Float = 1
    package var topP: Float = 1
    /// The number of tokens to sample from; 0 for all.
    package var topK = 0
    package var minP: Float = 0
    package var repetitionPenalty: Float = 1
    package var presencePenalty: Float = 0
    package var frequencyPenalty: Float = 0
    /// The limit of new tokens on routes that have none of their own; `nil` for as many as the context leaves.
    package var maxNewTokens: Int?
    /// False if the text of an answer shows control tokens.
    package var skipsSpecialTokens = true
    /// The seed from which the seeds of requests that give none are drawn; `nil` draws them from the system.
    package var seed: UInt64?

    package init(temperature: Float = 1, topP: Float = 1, topK: Int = 0) {
        self.temperature = temperature
        self.topP = topP
        self.topK = topK
    }
}
