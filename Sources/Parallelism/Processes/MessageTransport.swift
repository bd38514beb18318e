/// Transports messages between the processes of a job: in order from one process to another, and without loss as long
/// as both are alive. `MPITransport` is used in production; tests have a transport within one process.
package protocol MessageTransport: AnyObject, Sendable {
    /// These are this process's number, and the number of processes.
    var process: Int { get }
    var processes: Int { get }
    /// The number of the job's processes on this host.
    var processesHere: Int { get }

    /// Begins to deliver messages.
    ///
    /// - Parameters:
    ///   - receive: is called with each message and the process it is from, in order, by one thread.
    ///   - look: is called by the same thread repeatedly, at least several times per second.
    ///   - lose: is called once, if the transport cannot continue.
    func start(
        receive: @escaping @Sendable (Message, Int) -> Void, look: @escaping @Sendable () -> Void,
        lose: @escaping @Sendable (String) -> Void)

    /// Sends a message without waiting for any process.
    func send(_ message: Message, to process: Int)

    /// Sets whether there are enough cores to poll without pauses while a thread waits for a message. The default is
    /// no.
    func setPolls(_ polls: Bool)

    /// Announce that a thread waits for a message, and that it no longer does, so that the transport polls more often.
    func beginWait()
    func endWait()

    /// Leaves the job: returns when every message has been sent and all processes have called it.
    func leave()

    /// Ends all processes of the job, including this one, as far as possible.
    func endJob(status: Int32)
}
