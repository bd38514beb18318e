extension ServingTraffic {
    /// Sends the requests when they are due, `concurrency` at a time, and waits for the last answer.
    ///
    /// - Parameters:
    ///   - concurrency: The largest number of requests at a time. Requests that are due while so many run wait for one
    ///     of them; their times count from when they are sent.
    ///   - send: Serves one request.
    /// - Returns: The outcomes in the order of `arrivals`, and the seconds from the first request to the last answer.
    package func run(
        concurrency: Int, send: @escaping @Sendable (Arrival) async -> ServingOutcome
    ) async -> (outcomes: [ServingOutcome], seconds: Double) {
        precondition(concurrency > 0, "no request could ever be sent")
        let arrivals = arrivals
        var outcomes = arrivals.map { ServingOutcome(inputTokens: $0.inputTokens) }
        let start = ContinuousClock.now
        await withTaskGroup(of: (Int, ServingOutcome).self) { tasks in
            var running = 0
            func collect(_ result: (Int, ServingOutcome)?) {
                guard let (index, outcome) = result else { return }
                outcomes[index] = outcome
                running -= 1
            }
            for (index, arrival) in arrivals.enumerated() {
                // Sleeping ends early only when the whole command is being cancelled.
                try? await Task.sleep(until: start + .seconds(arrival.seconds), clock: .continuous)
                while running >= concurrency { collect(await tasks.next()) }
                running += 1
                tasks.addTask { (index, await send(arrival)) }
            }
            while running > 0 { collect(await tasks.next()) }
        }
        return (outcomes, (ContinuousClock.now - start) / .seconds(1))
    }
}
