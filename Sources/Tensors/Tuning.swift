/// What may be chosen for a processor because it only decides how long something takes: no result depends on it.
package struct Tuning: Sendable, Equatable {
    /// Of a team: the work of an operation below which one thread is done sooner than others are told. Counted in
    /// elements moved; sixteen multiply-adds in registers take about as long as one.
    package var leastSharedWork = 1 << 13
    /// Of a team: how often a helper looks for the next operation, and the leader for the last part of one, before
    /// going to sleep. Longer than what lies between two operations of a layer; nobody spins where threads outnumber
    /// cores.
    package var spins = 4000

    package init() {}
}
