/// A health probe requests `/health` of a server repeatedly, as a supervisor does, and measures the time of each
/// answer.
struct HealthProbe: Sendable {
    private let client: HTTPClient

    init(_ client: HTTPClient) { self.client = client }

    /// Probes until the task is cancelled.
    ///
    /// - Returns: The seconds from connecting to the end of each answer.
    /// - Throws: `CommandError` if an answer is missing or its status is not 200.
    func run() async throws -> Measurements {
        let clock = ContinuousClock()
        var seconds: [Double] = []
        while !Task.isCancelled {
            let start = clock.now
            do {
                let answer = try await client.get("/health")
                guard answer.status == 200 else {
                    throw CommandError("\(client.address)/health: status \(answer.status): \(answer.message)")
                }
            } catch  where Task.isCancelled {
                break
            }
            seconds.append((clock.now - start) / .seconds(1))
            try? await clock.sleep(until: start + .milliseconds(50))
        }
        return Measurements(seconds)
    }
}
