import Synchronization

/// Asks for `/health` again and again, each time on a new connection, and measures the time.
final class HealthProbe: Sendable {
    private let port: Int
    private let state = Mutex((times: [Double](), findings: [String]()))

    init(port: Int) { self.port = port }

    var findings: [String] { state.withLock { $0.findings } }
    var times: [Double] { state.withLock { $0.times } }

    func run() {
        let start = ContinuousClock.now
        do {
            let exchange = try HTTPExchange(port: port)
            exchange.send("GET", "/health", headers: "Connection: close\r\n")
            let reply = try exchange.reply(within: Patience.answer)
            guard reply.status == 200 else { throw Finding("status \(reply.status): \(reply.text)") }
            state.withLock { $0.times.append(start.duration(to: .now) / .seconds(1)) }
        } catch {
            state.withLock { $0.findings.append("/health: \(error)") }
        }
    }
}

extension [Double] {
    /// Returns a quantile in milliseconds as text.
    func milliseconds(_ quantile: Double) -> String {
        guard !isEmpty else { return "-" }
        let value = sorted()[Swift.min(count - 1, Int(Double(count) * quantile))] * 1000
        return "\((value * 10).rounded() / 10) ms"
    }
}
