import Foundation
package import KVCache
import Parallelism
package import Planning

/// Ways to divide devices between prompts and decoding.
package struct DisaggregationReport {
    private let planner: Planner
    private let traffic: PlannedTraffic
    private let pairs: [Disaggregation]
    private let cache: CacheType

    package init(_ planner: Planner, _ traffic: PlannedTraffic, _ pairs: [Disaggregation], cache: CacheType) {
        self.planner = planner
        self.traffic = traffic
        self.pairs = pairs
        self.cache = cache
    }

    package var lines: [String] {
        var table = TextTable(
            ["prefill on", "layout", "decode on", "layout", "TTFT", "transfer", "TPOT", "tokens/s"], left: 4)
        for pair in pairs {
            table.add([
                "\(pair.prefillDevices)", pair.prefill.parallel.notation, "\(pair.decodeDevices)",
                pair.decode.parallel.notation, secondsText(pair.firstToken), secondsText(pair.transfer),
                secondsText(pair.decode.perToken.total), String(format: "%.1f", pair.throughput),
            ])
        }
        return table.lines + [
            "", "TTFT includes the transfer: the keys of a prompt's last chunk, between hosts; those of earlier chunks",
            "are sent while the next chunk is computed · not measured: no disaggregated run was published with what it",
            "takes to predict it", "",
        ] + flags(pairs[0])
    }

    private func flags(_ pair: Disaggregation) -> [String] {
        [(LaunchFlags.Role.prefill, pair.prefill), (.decode, pair.decode)].flatMap { role, prediction in
            let flags = LaunchFlags(
                prediction.parallel, traffic, planner.model, planner.cluster.hardware, cache: cache, role: role)
            return ["\(role.rawValue): \(flags.sglangLine)"]
                + flags.refusals.map { "   SGLang refuses: \($0)" }
        }
    }
}
