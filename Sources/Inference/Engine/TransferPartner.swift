/// A transfer partner carries out what an engine's scheduler wants of another server (`TransferAction`).
package protocol TransferPartner: Sendable {
    /// True if another server computes prompts for this engine; false if this engine computes them for others.
    var computesPrompts: Bool { get }

    /// Carries out the scheduler's actions until there are none left. The engine calls it under its lock, after every
    /// change of the scheduler and before it submits the next plan; it must not call the engine or wait.
    ///
    /// - Parameter events: the events of the change.
    /// - Returns: the events for this server's clients: those of `events` that are not of requests that it prefills for
    ///   others, and those that follow from the actions.
    func carryOut(_ scheduler: inout Scheduler, _ events: [Scheduler.Event]) -> [Scheduler.Event]

    /// Is called under the engine's lock when ranks have stored the keys of more layers in the middle of a step, once for
    /// each time that the partner has asked for it (`ServerCaches.awaitStoredLayers`). It must not call the engine or wait.
    func keysAreStored()
}
