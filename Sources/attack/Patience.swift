/// The times after which something is taken for a hang.
///
/// A hang lasts for ever, so they are far longer than anything takes on a machine that has much else to do: no
/// case may fail because of that.
enum Patience {
    /// An answer of the server, or the end of a connection. It is shorter than the time after which the server closes an
    /// idle connection, and than that in which a body must arrive, which would end what has hung.
    static let answer: Duration = .seconds(55)
    /// An answer after which many tokens were computed.
    static let generation: Duration = .seconds(300)
    /// The start and the end of a program, in seconds.
    static let program = 120.0
}
