import Dispatch
import Foundation
package import Tensors

/// A team that has threads of its own for helpers and shares every operation that can be shared, however small.
package final class HelpedTeam {
    /// The kernels that share their work with the helpers. Only one thread may use them.
    package let kernels: Kernels
    private let team: Team
    private let helpers = DispatchGroup()

    package init(threads: Int, _ kernels: Kernels = .best, spins: Bool = false) {
        var tuning = kernels.tuning
        tuning.minParallelWork = 1
        let kernels = kernels.tuned(tuning)
        let (team, helpers) = (try! Team(kernels, threads: threads, spins: spins), helpers)
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
        precondition(helpers.wait(timeout: .now() + 300) == .success, "helpers of a team that was dismissed do not end")
    }

    /// The number of operations shared so far.
    package var operations: Int { team.operations }
}
