import Tensors

/// How much address space the ranks of a process reserve for what a step needs for a moment. It becomes resident only as
/// it is used, so ranks reserve plenty where nothing limits it, and what the largest step is estimated to need elsewhere.
struct StepMemory: Equatable {
    /// Bytes of each rank.
    let rankBytes: Int
    /// Bytes of each thread that helps a rank, and again of the rank itself where it has helpers.
    let helperBytes: Int

    /// - Parameters:
    ///   - ranks: of this process.
    ///   - limited: whether to reserve no more than is needed; `nil` to find out whether more is possible.
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

    /// Bytes of all ranks of a process together.
    func total(_ settings: RankSettings, ranks: Int) -> Int {
        ranks * (rankBytes + Self.teamThreads(settings) * helperBytes)
    }

    /// What to tell an operator whose system does not reserve so much.
    func problem(_ error: MemoryError) -> String {
        "\(rankBytes) bytes of scratch memory are needed for a step: \(error); lower --chunked-prefill-size or "
            + "--max-running-requests, start fewer ranks, or raise the limit"
    }

    private static func teamThreads(_ settings: RankSettings) -> Int {
        settings.threadsPerRank == 1 ? 0 : settings.threadsPerRank
    }

    /// What a row of a step needs, at most: in the largest models two megabytes, which is 72 states.
    private static func rowBytes(_ stateWidth: Int) -> Int { 72 * stateWidth * MemoryLayout<Float>.stride }
    /// What is worked on at once whatever the rows: scores, logits, partial outputs of experts.
    private static let tileBytes = 128 << 20
}
