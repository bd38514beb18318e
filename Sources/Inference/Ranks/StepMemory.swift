import Tensors

/// Step memory is the address space that the ranks of a process reserve for temporary values of a step. It becomes
/// resident only as it is used, so ranks reserve plenty where nothing limits it, and otherwise an estimate of what the
/// largest step needs.
struct StepMemory: Equatable {
    /// The bytes of each rank.
    let rankBytes: Int
    /// The bytes of each helper thread of a rank, and once more for the rank itself where it has helpers.
    let helperBytes: Int

    /// - Parameters:
    ///   - ranks: The number of ranks of this process.
    ///   - limited: True to reserve only the estimate; `nil` finds out whether the system allows more.
    init(_ settings: RankSettings, stateWidth: Int, ranks: Int, limited: Bool? = nil) {
        let plenty = ranks * (Scratch.rankBytes + Self.teamThreads(settings) * Scratch.helperBytes)
        // A quarter more for everything else.
        if limited ?? (Buffer.problem(reserving: plenty + plenty / 4) != nil) {
            rankBytes = Self.rowBytes(stateWidth) * settings.maxRows + Self.tileBytes
            helperBytes = Self.tileBytes
        } else {
            (rankBytes, helperBytes) = (Scratch.rankBytes, Scratch.helperBytes)
        }
    }

    /// Returns the bytes of all ranks of a process together.
    func total(_ settings: RankSettings, ranks: Int) -> Int {
        ranks * (rankBytes + Self.teamThreads(settings) * helperBytes)
    }

    /// Returns a message for an operator whose system does not reserve this much.
    func problem(_ error: MemoryError) -> String {
        "\(rankBytes) bytes of scratch memory are needed for a step: \(error); lower --chunked-prefill-size or "
            + "--max-running-requests, start fewer ranks, or raise the limit"
    }

    private static func teamThreads(_ settings: RankSettings) -> Int {
        settings.threadsPerRank == 1 ? 0 : settings.threadsPerRank
    }

    /// Returns an upper bound of the bytes that a row of a step needs: 72 states, which is two megabytes in the largest
    /// models.
    private static func rowBytes(_ stateWidth: Int) -> Int { 72 * stateWidth * MemoryLayout<Float>.stride }
    /// The bytes of values whose number does not depend on the rows: score tiles, logits, partial outputs of experts.
    private static let tileBytes = 128 << 20
}
