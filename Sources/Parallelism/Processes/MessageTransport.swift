/// Carries messages between the processes of a job: in order from one process to another, and without loss as long as
/// both live. The MPI courier is the real one; tests have one within a process.
package protocol MessageTransport: AnyObject, Sendable {
    /// This process's number, and how many there are.
    var process: Int { get }
    var processes: Int { get }
    /// How many of them run on this host.
    var processesHere: Int { get }

    /// Begins to hand over what comes.
    ///
    /// - Parameters:
    ///   - receive: called with each message and the process it is from, in order, by one thread.
    ///   - look: called by the same thread again and again, several times a second at least.
    ///   - lose: called once, if the courier cannot go on.
    func start(
        receive: @escaping @Sendable (Message, Int) -> Void, look: @escaping @Sendable () -> Void,
        lose: @escaping @Sendable (String) -> Void)

    /// Takes a message; does not wait for anybody.
    func send(_ message: Message, to process: Int)

    /// Whether there are cores to look for messages without a pause while somebody waits for one. Not at first.
    func setPolls(_ polls: Bool)

    /// Says that a thread waits for a message, and that it no longer does: worth looking more often.
    func beginWait()
    func endWait()

    /// Leaves the job in order: returns when everything that was sent has left and all processes have come here.
    func leave()

    /// Ends all processes of the job, this one included, as far as it can.
    func endJob(status: Int32)
}
