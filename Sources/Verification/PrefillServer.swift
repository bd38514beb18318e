import Inference
package import Parallelism

/// The prefill server of a case: it computes the prompts, and the case's other server receives their keys over a link
/// in memory. None of its values may change an answer.
///
/// What is not listed here, such as the cache's type, both servers have in common.
package struct PrefillServer: Sendable, Hashable {
    package var layout: ParallelConfiguration
    /// The maximum number of prompt tokens of a request in one step; -1 computes whole prompts.
    package var chunk = -1
    /// The number of tokens in a page.
    package var pageSize = 16
    /// The number of tokens drafted after each prompt; not 0 if the other server drafts tokens.
    package var drafts = 0
    package var caching = PrefixCaching.both
    package var link = LinkFault.none

    package init(_ layout: ParallelConfiguration) { self.layout = layout }

    /// The dimensions besides the parallel configuration, in the order of a case's notation.
    package static let axes: [ConditionAxis<PrefillServer>] = [
        ConditionAxis("chunk", \.chunk, legal: ServingConditions.legalChunks, isLegal: ServingConditions.isLegalChunk),
        ConditionAxis("page", \.pageSize, legal: ServingConditions.legalPages, isLegal: ServingConditions.isLegalPage),
        ConditionAxis("draft", \.drafts, legal: "from 0 to 15") { (0...15).contains($0) },
        ConditionAxis("caching", \.caching),
        ConditionAxis("link", \.link),
    ]

    /// The part of a case's notation behind `from`.
    var notation: String { ([layout.notation] + Self.axes.map { $0.word(self) }).joined(separator: " ") }

    init(words: some Sequence<Substring>, for shape: ModelShape) throws(NotationError) {
        self.init(ParallelConfiguration())
        var rest: [Substring] = []
        for word in words {
            var isRead = false
            for axis in Self.axes where !isRead { isRead = try axis.read(word, &self) }
            if !isRead { rest.append(word) }
        }
        layout = try ParallelConfiguration(notation: rest.joined(separator: " "), for: shape)
    }

    /// The value of every dimension, by name.
    var values: [(axis: String, value: String)] {
        layout.values.map { ("from " + $0.axis, $0.value) } + Self.axes.map { ("from " + $0.name, $0.value(self)) }
    }

    /// The values of a case without a prefill server.
    static let noValues = PrefillServer(ParallelConfiguration()).values.map { ($0.axis, "-") }

    /// Returns the prefill servers of one layout that are worth trying.
    ///
    /// - Parameter conditions: those of the other server, of which the matrix has all combinations.
    static func all(_ layout: ParallelConfiguration, _ conditions: ServingConditions.Values) -> [PrefillServer] {
        [PrefillServer(layout)].with(\.chunk, conditions.chunks).with(\.pageSize, conditions.pageSizes)
            .with(\.drafts, conditions.drafts).with(\.caching, PrefixCaching.allCases)
            .with(\.link, LinkFault.allCases)
    }

    /// Returns whether a server with these conditions can use the prefill server: keys of the next-token block are those
    /// of drafts that it has made.
    func canServe(_ conditions: ServingConditions) -> Bool { conditions.drafts == 0 || drafts > 0 }

    /// The prefill server as a case of its own.
    func asCase(beside conditions: ServingConditions) -> VerificationCase {
        var conditions = conditions
        (conditions.chunk, conditions.pageSize, conditions.drafts) = (chunk, pageSize, drafts)
        return VerificationCase(layout, conditions)
    }
}

/// The servers that have a prefix cache, where the case has one at all (`PrefixUse`).
package enum PrefixCaching: String, Sendable, CaseIterable {
    case both = "cached-by-both"
    case prefill = "cached-by-prefill"
    case decode = "cached-by-decode"
}

/// What happens to one frame while a workload is served. The session then ends, and a new one begins; prompts of the old
/// one are computed to their ends by the decode server.
package enum LinkFault: String, Sendable, CaseIterable {
    case none = "link-whole"
    /// The frame does not arrive.
    case drop = "link-drops"
    /// A bit of the frame changes.
    case damage = "link-damages"
    /// The connection ends.
    case cut = "link-cuts"
}
