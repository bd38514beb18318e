/// Where the server listens, who may use it, and what it puts up with.
package struct ServerConfiguration: Sendable, Equatable {
    /// The address to listen on. Only this machine can reach the default.
    package var host = "127.0.0.1"
    /// 0 lets the system choose.
    package var port = 30000
    /// The key every route but `/health` asks for; `nil` asks for none.
    package var apiKey: String?
    /// The name requests must give as `model`.
    package var servedModelName: String
    package var requests = RequestLimits()
    /// Larger bodies are refused with 413.
    package var maxBodyBytes = 32 << 20
    /// Values in a body, member names among them. A prompt of token ids has one for each.
    package var maxBodyValues = 4 << 20
    /// All header fields of a request together.
    package var maxHeaderBytes = 16 << 10
    package var maxHeaderCount = 100
    /// Beyond so many connections, idle ones are closed to make room.
    package var maxConnections = 4096
    /// The same for connections of one address.
    package var maxConnectionsPerAddress = 3072
    /// Names of this machine besides its own and `localhost`; `*` for any. Asked for where there is no key.
    package var allowedHosts: [String] = []
    /// The whole body has to arrive within this time.
    package var bodyTimeout: Duration = .seconds(60)
    /// A connection on which no request is being answered is closed after this time; so is one whose header dawdles.
    package var idleTimeout: Duration = .seconds(75)
    /// A reader that takes nothing of a stream for this long is disconnected.
    package var writeTimeout: Duration = .seconds(120)
    /// How long running requests may go on after the first request to stop.
    package var drainTimeout: Duration = .seconds(60)

    package init(servedModelName: String) {
        self.servedModelName = servedModelName
    }

    /// All that is wrong with this configuration, each with what to do about it; empty if nothing is.
    package func validate() -> [String] {
        var problems = requests.validate()
        if host.isEmpty { problems.append("--host is empty; use 127.0.0.1 for this machine only, 0.0.0.0 for all") }
        if !(0...65535).contains(port) {
            problems.append("--port is \(port); it must be in 0...65535, for example 30000")
        }
        if servedModelName.isEmpty { problems.append("--served-model-name is empty; give the model a name") }
        if let apiKey {
            if apiKey.isEmpty { problems.append("--api-key is empty; leave it out to ask for no key") }
            if !apiKey.utf8.allSatisfy({ (0x21...0x7E).contains($0) }) {
                problems.append("--api-key has characters a header cannot carry; use visible ASCII without spaces")
            }
        }
        let sizes = [
            ("--max-body-bytes", maxBodyBytes, 1024), ("--max-body-values", maxBodyValues, 1024),
            ("--max-header-bytes", maxHeaderBytes, 1024),
            ("--max-header-count", maxHeaderCount, 16), ("--max-connections", maxConnections, 1),
            ("--max-connections-per-address", maxConnectionsPerAddress, 1),
        ]
        for (name, value, least) in sizes where value < least {
            problems.append("\(name) is \(value); the least is \(least)")
        }
        let times = [
            ("--body-timeout", bodyTimeout), ("--idle-timeout", idleTimeout), ("--write-timeout", writeTimeout),
        ]
        for (name, value) in times where value <= .zero {
            problems.append("\(name) is \(value); it must be more than 0 seconds")
        }
        if drainTimeout < .zero { problems.append("--drain-timeout is \(drainTimeout); the least is 0 seconds") }
        return problems
    }
}

/// The most a single request may ask for. All are checked before anything is queued.
package struct RequestLimits: Sendable, Equatable {
    /// `n`: choices for one prompt.
    package var maxChoices = 128
    /// Prompts times choices in one request.
    package var maxSequences = 1024
    /// `top_logprobs`; the engine may allow fewer.
    package var maxTopLogProbs = 20
    package var maxStopStrings = 16
    /// Bytes (UTF-8) of one stop string: so much text may have to be held back while streaming.
    package var maxStopStringBytes = 1024
    package var maxStopTokens = 1024
    package var maxLogitBiases = 4096
    /// Bytes (UTF-8) of a `cache_salt`.
    package var maxCacheSaltBytes = 256

    package init() {}

    func validate() -> [String] {
        let counts = [
            ("--max-choices", maxChoices, 1), ("--max-sequences", maxSequences, 1),
            ("--max-top-logprobs", maxTopLogProbs, 0), ("--max-stop-strings", maxStopStrings, 0),
            ("--max-stop-string-bytes", maxStopStringBytes, 1), ("--max-stop-tokens", maxStopTokens, 0),
            ("--max-logit-biases", maxLogitBiases, 0), ("--max-cache-salt-bytes", maxCacheSaltBytes, 1),
        ]
        return counts.compactMap { name, value, least in
            value < least ? "\(name) is \(value); the least is \(least)" : nil
        }
    }
}

/// What a model's `generation_config.json` recommends for requests that do not say.
package struct SamplingDefaults: Sendable, Equatable {
    package var temperature: Float = 1
    package var topP: Float = 1
    /// 0 for all.
    package var topK = 0

    package init(temperature: Float = 1, topP: Float = 1, topK: Int = 0) {
        self.temperature = temperature
        self.topP = topP
        self.topK = topK
    }
}
