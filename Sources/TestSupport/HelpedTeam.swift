import Dispatch
import Foundation
package import Tensors

/// A team with threads of its own for helpers, which shares whatever can be shared, however small.
package final class HelpedTeam {
    /// To be used by one thread.
    package let kernels: Kernels
    private let team: Team
    private let helpers = DispatchGroup()

    package init(threads: Int, _ kernels: Kernels = .best, spins: Bool = false) {
        var tuning = kernels.tuning
        tuning.minParallelWork = 1
        let kernels = kernels.tuned(tuning)
        let (team, helpers) = (Team(kernels, threads: threads, spins: spins), helpers)
        self.team = team
        self.kernels = kernels.shared(by: team)
        for _ in 1..<threads {
            helpers.enter()
            Thread.detachNewThread {
                team.help()
                helpers.leave()
            }
        }
    }

    deinit {
        team.dismiss()
        helpers.wait()
    }

    /// That were shared so far.
    package var operations: Int { team.operations }
}
