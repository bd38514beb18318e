import ArgumentParser
import Routing
import Serving

/// The options that bound the requests of a router, and say when a worker has failed.
struct RouterLimits: ParsableArguments, Sendable {
    @Option(
        help: "Requests that are with workers at the same time; further ones wait. Default: 1024.",
        transform: Parsing.count(1...Parsing.maxCount))
    var maxConcurrentRequests = 1024

    @Option(
        help: "Requests that wait; further ones get 429. Default: 1024.", transform: Parsing.count(0...Parsing.maxCount)
    )
    var queueSize = 1024

    @Option(
        help: "How long a request waits before it gets 503: seconds, or 90s, 5m, 1h. Default: 60.",
        transform: Parsing.seconds(1...Parsing.maxSeconds))
    var queueTimeoutSecs = 60

    @Option(
        help: "The largest body of a request in bytes; larger ones get 413. Default: 33554432.",
        transform: Parsing.count(1024...1 << 40))
    var maxBodyBytes = 32 << 20

    @Option(
        help: "Further workers that a request is sent to while none has begun to answer. Default: 2.",
        transform: Parsing.count(0...PrefixIndex.maxSlots))
    var retryMaxRetries = 2

    @Option(
        help: "Failures in a row that open a worker's circuit breaker. Default: 5.",
        transform: Parsing.count(1...Parsing.maxCount))
    var cbFailureThreshold = 5

    @Option(
        help: "Successes in a row that close an open circuit breaker. Default: 1.",
        transform: Parsing.count(1...Parsing.maxCount))
    var cbSuccessThreshold = 1

    @Option(
        help: "Seconds that an open breaker keeps requests away. Default: 5.",
        transform: Parsing.seconds(1...Parsing.maxSeconds))
    var cbTimeoutDurationSecs = 5

    @Flag(help: "Send requests also to workers that fail them.")
    var disableCircuitBreaker = false

    @Option(help: "The path that says whether a worker takes requests.")
    var healthCheckEndpoint = "/ready"

    @Option(
        help: "Seconds between two checks of a worker. Default: 1.", transform: Parsing.seconds(1...Parsing.maxSeconds))
    var healthCheckIntervalSecs = 1

    @Option(help: "Seconds that a check may take. Default: 2.", transform: Parsing.seconds(1...Parsing.maxSeconds))
    var healthCheckTimeoutSecs = 2

    @Option(
        help: "Checks in a row without an answer that take a worker out. Default: 2.",
        transform: Parsing.count(1...Parsing.maxCount))
    var healthFailureThreshold = 2

    @Option(
        help: "Checks in a row with an answer that bring a worker back. Default: 1.",
        transform: Parsing.count(1...Parsing.maxCount))
    var healthSuccessThreshold = 1

    @Option(
        help: """
            Seconds without an answer to any check after which the requests of a worker are ended, or sent to another one \
            if their answers have not begun; 0 lets them wait. Default: 10.
            """,
        transform: Parsing.seconds(0...Parsing.maxSeconds))
    var workerTimeoutSecs = 10

    /// Writes the options into a configuration.
    func apply(to configuration: inout RouterConfiguration) {
        configuration.maxConcurrentRequests = maxConcurrentRequests
        configuration.queueSize = queueSize
        configuration.queueTimeout = .seconds(queueTimeoutSecs)
        configuration.server.maxBodyBytes = maxBodyBytes
        configuration.maxRetries = retryMaxRetries
        configuration.pool.breaker.failureThreshold = disableCircuitBreaker ? nil : cbFailureThreshold
        configuration.pool.breaker.successThreshold = cbSuccessThreshold
        configuration.pool.breaker.openTime = .seconds(cbTimeoutDurationSecs)
        configuration.pool.health.failureThreshold = healthFailureThreshold
        configuration.pool.health.successThreshold = healthSuccessThreshold
        configuration.checkPath = healthCheckEndpoint
        configuration.checkInterval = .seconds(healthCheckIntervalSecs)
        configuration.checkTimeout = .seconds(healthCheckTimeoutSecs)
        configuration.silenceLimit = workerTimeoutSecs == 0 ? nil : .seconds(workerTimeoutSecs)
    }
}
