import Checkpoints
import Foundation
import Inference
import JSON
import Modeling
import Parallelism
import Tensors
import Verification

/// A verification report prints the output of `braid verify`: a line for each case, then a summary.
struct VerificationReport {
    private let command: Verify
    private let plan: VerificationPlan
    /// The digest of the checkpoint's files.
    private let digest: ContentDigest
    /// The length of the longest notation of a case.
    private let width: Int
    private let progress = ProgressBar("verifying")
    private let began = ContinuousClock.now
    private var number = 0
    private var equal = 0
    private var close = 0
    private var largest: Float = 0
    private var slowest: (candidate: VerificationCase, seconds: Double)?
    private var different: [VerificationCase] = []

    init(_ command: Verify, _ plan: VerificationPlan, layouts: Int, digest: ContentDigest) {
        self.command = command
        self.plan = plan
        self.digest = digest
        width = plan.cases.map(\.notation.count).max() ?? 0
        if command.json { return }
        line("checkpoint \(digest)")
        let share = plan.cases.count < plan.total ? ", of which \(plan.cases.count) are tried" : ""
        line("\(grouped(layouts)) layouts, \(grouped(plan.total)) cases\(share); seed \(command.seed)")
    }

    var differing: Int { different.count }

    /// Prints which case runs, so that a case that ends the process is known.
    mutating func begin(_ candidate: VerificationCase) {
        number += 1
        if command.json || progress.isWatched { return }
        StandardStreams.write(title(candidate))
    }

    mutating func end(
        _ candidate: VerificationCase, _ verdict: Verification.Verdict, mustBeEqual: Bool, seconds: Double
    ) {
        switch verdict {
        case .equal: equal += 1
        case .close(let distance):
            close += 1
            largest = max(largest, distance)
        case .different: different.append(candidate)
        }
        if seconds > slowest?.seconds ?? -1 { slowest = (candidate, seconds) }
        progress.finish()
        if command.json {
            StandardStreams.write(
                record(candidate, verdict, mustBeEqual: mustBeEqual, seconds: seconds).pythonText + "\n")
        } else {
            let shown = progress.isWatched ? title(candidate) : ""
            line("\(shown) \(rounded(seconds)) s  \(text(verdict, of: candidate))")
        }
        progress.update(Double(number) / Double(plan.cases.count))
    }

    func finish(_ coverage: RunCoverage) {
        progress.finish()
        let seconds = (ContinuousClock.now - began) / .seconds(1)
        if command.json { return StandardStreams.write(summary(seconds, coverage).pythonText + "\n") }
        let rounding = close > 0 ? ", \(close) equal to rounding (largest difference \(short(largest)))" : ""
        let verdict = differing > 0 ? "\(differing) DIFFERENT" : "none different"
        let layouts = Set(plan.cases.map(\.layout)).count
        let profiles = plan.cases.map(\.conditions.profile)
        let named = NumericsProfile.allCases.filter(profiles.contains).map(\.name).joined(separator: " and ")
        line("")
        let axisWidth = (plan.coverage.map(\.axis.count).max() ?? 0) + 1
        for coverage in plan.coverage {
            let counts = coverage.values.map { "\($0.value): \($0.cases)" }.joined(separator: "  ")
            line(coverage.axis.padding(toLength: axisWidth, withPad: " ", startingAt: 0) + counts)
        }
        line("pairs of values: \(grouped(plan.pairs.covered)) of \(grouped(plan.pairs.total))")
        line(
            "with \(grouped(Int(coverage.cachedTokens))) tokens found in the prefix cache, "
                + "\(grouped(Int(coverage.preemptions))) preemptions, \(grouped(coverage.speculation.accepted)) of "
                + "\(grouped(coverage.speculation.drafted)) drafts accepted, and query-gather attention used "
                + "\(grouped(Int(coverage.dcpChunks))) times")
        if plan.prefillPairs.covered > 0 {
            let (pairs, sent) = (plan.prefillPairs, coverage.transfers)
            line(
                "with keys from prefill servers in \(grouped(plan.cases.count { $0.prefill != nil })) cases, with "
                    + "\(grouped(pairs.covered)) of \(grouped(pairs.total)) pairs of a value of each server: "
                    + "\(grouped(Int(sent.bytes))) bytes in \(grouped(Int(sent.frames))) frames, "
                    + "\(grouped(Int(sent.earlyFrames))) of them before their step ended, "
                    + "\(sent.losses) sessions lost")
        }
        line("")
        line(
            "\(number) cases of \(layouts == 1 ? "one layout" : "\(layouts) layouts"), computed in \(named), in "
                + "\(rounded(seconds)) s: "
                + "\(equal) equal\(rounding), \(verdict)")
        if let slowest { line("slowest: \(rounded(slowest.seconds)) s, \(slowest.candidate.notation)") }
        if plan.cases.count < plan.total {
            let share = "\(grouped(number)) of \(grouped(plan.total)) cases"
            line("sample:  \(share); another with --seed, more with --layouts")
        }
        for candidate in different.prefix(3) { line("repeat:  \(command.command(repeating: candidate))") }
        if differing > 3 { line("         … and \(differing - 3) more") }
    }

    private func title(_ candidate: VerificationCase) -> String {
        let count = String(plan.cases.count)
        let place = String(repeating: " ", count: count.count - String(number).count) + String(number)
        return "\(place)/\(count) " + candidate.notation.padding(toLength: width, withPad: " ", startingAt: 0)
    }

    private func text(_ verdict: Verification.Verdict, of candidate: VerificationCase) -> String {
        switch verdict {
        case .equal: return "equal"
        case .close(let distance):
            let tolerance = Verification.tolerance(of: candidate.conditions)
            return "equal to \(short(tolerance)) (\(short(distance)))"
        case .different(let difference):
            let values = values(of: candidate).map { "\($0.axis) \($0.value)" }.joined(separator: ", ")
            return "DIFFERENT\n        \(difference)\n        \(values)\n        repeat: "
                + command.command(repeating: candidate)
        }
    }

    private func values(of candidate: VerificationCase) -> [(axis: String, value: String)] {
        candidate.values + (candidate.prefill == nil ? [] : candidate.prefillValues)
    }

    /// Returns a number with one digit, such as `1e-5`.
    private func short(_ number: Float) -> String {
        String(format: "%.0e", Double(number)).replacingOccurrences(of: "e-0", with: "e-")
    }

    private func line(_ text: String) { StandardStreams.write(text + "\n") }

    // MARK: - JSON

    private func record(
        _ candidate: VerificationCase, _ verdict: Verification.Verdict, mustBeEqual: Bool, seconds: Double
    ) -> JSONValue {
        var members: [JSONMember] = [
            JSONMember("kind", .string("case")), JSONMember("number", .integer(number)),
            JSONMember("of", .integer(plan.cases.count)), JSONMember("case", .string(candidate.notation)),
            JSONMember("ranks", .integer(candidate.layout.world)),
            JSONMember(
                "values", .object(values(of: candidate).map { JSONMember(name($0.axis), .string($0.value)) })),
            JSONMember("must_be_equal", .bool(mustBeEqual)),
            JSONMember("seconds", .measured(seconds)),
        ]
        switch verdict {
        case .equal: members.append(JSONMember("verdict", .string("equal")))
        case .close(let distance):
            members.append(JSONMember("verdict", .string("close")))
            members.append(JSONMember("largest_difference", .measured(Double(distance))))
        case .different(let difference):
            members.append(JSONMember("verdict", .string("different")))
            members.append(JSONMember("difference", .string(difference.description)))
            if let value = difference.value { members += self.members(of: value) }
            members.append(JSONMember("repeat", .string(command.command(repeating: candidate))))
        }
        return .object(members)
    }

    private func members(of value: Difference.Value) -> [JSONMember] {
        [
            JSONMember("layer", value.key.stage == .logits ? .null : .integer(value.key.layer)),
            JSONMember("stage", .string(value.key.stage.rawValue)),
            JSONMember("request", .integer(Int(value.place.request))),
            JSONMember("position", .integer(value.place.position)),
            JSONMember("index", .integer(value.index)), JSONMember("expected", .measured(Double(value.expected))),
            JSONMember("found", .measured(Double(value.found))), JSONMember("rows", .integer(value.rows)),
            JSONMember("of_rows", .integer(value.allRows)), JSONMember("repeatable", .bool(value.isRepeatable)),
        ]
    }

    private func summary(_ seconds: Double, _ coverage: RunCoverage) -> JSONValue {
        .fields([
            "kind": .string("summary"), "checkpoint": .string("\(digest)"), "cases": .integer(number),
            "of_cases": .integer(plan.total),
            "seed": .string(String(command.seed)), "equal": .integer(equal), "close": .integer(close),
            "largest_difference": .measured(Double(largest)), "different": .integer(differing),
            "covered": .object(
                plan.coverage.map { coverage in
                    JSONMember(
                        name(coverage.axis), .object(coverage.values.map { JSONMember($0.value, .integer($0.cases)) }))
                }),
            "covered_pairs": .integer(plan.pairs.covered), "of_pairs": .integer(plan.pairs.total),
            "cached_tokens": .integer(Int(coverage.cachedTokens)), "preemptions": .integer(Int(coverage.preemptions)),
            "dcp_chunks": .integer(Int(coverage.dcpChunks)),
            "drafts": .integer(coverage.speculation.drafted),
            "accepted_drafts": .integer(coverage.speculation.accepted),
            "prefill_pairs": .integer(plan.prefillPairs.covered),
            "of_prefill_pairs": .integer(plan.prefillPairs.total),
            "sent_frames": .integer(Int(coverage.transfers.frames)),
            "early_frames": .integer(Int(coverage.transfers.earlyFrames)),
            "sent_bytes": .integer(Int(coverage.transfers.bytes)),
            "lost_sessions": .integer(Int(coverage.transfers.losses)),
            "seconds": .measured(seconds),
            "slowest": .string(slowest?.candidate.notation ?? ""), "slowest_seconds": .measured(slowest?.seconds),
        ])
    }

    private func name(_ axis: String) -> String { axis.replacingOccurrences(of: " ", with: "_") }
}
