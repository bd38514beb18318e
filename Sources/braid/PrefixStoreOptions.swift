import ArgumentParser
import Inference
import Modeling
import PrefixStorage

/// These options let a server keep prefixes on disk, so that a prompt that begins like an earlier one is not computed
/// again after a restart.
package struct PrefixStoreOptions: ParsableArguments, Sendable {
    @Option(
        help: """
            A directory in which computed prompts are kept, so that a server that starts later need not compute them \
            again. It is created if it does not exist, and may be shared: one server writes, the others read. Of several \
            processes, the first has it.
            """)
    var prefixCacheDir: String?

    @Option(
        help: """
            Bytes that the files in --prefix-cache-dir may have, such as 20GiB (default) or 500MB. The least recently used \
            are removed.
            """,
        transform: Parsing.bytes(1...1 << 60))
    var prefixCacheSize: Int?

    package init() {}

    private static let usualBytes = 20 << 30

    /// Checks the options together and against the model.
    ///
    /// - Returns: `nil` without a directory.
    /// - Throws: `CommandError` with all problems, a line each.
    func settings(
        for model: any Model, _ configuration: EngineConfiguration, _ mode: DisaggregationOptions.Mode
    ) throws -> DiskPrefixStore.Settings? {
        guard let prefixCacheDir else {
            if prefixCacheSize != nil { throw CommandError("--prefix-cache-size needs --prefix-cache-dir") }
            return nil
        }
        let settings = DiskPrefixStore.Settings(path: prefixCacheDir, limitBytes: prefixCacheSize ?? Self.usualBytes)
        var problems: [String] = []
        if prefixCacheDir.isEmpty { problems.append("the name is empty; name a directory") }
        if mode == .decode {
            problems.append(
                "not for a decode server, which has prompts computed elsewhere; give it to the prefill servers")
        }
        problems += DiskPrefixStore.problems(settings, model, configuration)
        guard problems.isEmpty else {
            throw CommandError(problems.map { "--prefix-cache-dir: \($0)" }.joined(separator: "\n"))
        }
        return settings
    }

    /// Returns what an operator should know of a store at the start.
    static func startLine(of status: PrefixStoreStatus) -> String {
        let mode =
            status.isWriting
            ? "this server writes" : "read only: another server writes it, or the file system is read-only"
        return "prefix cache on disk: \(status.directory), \(status.blocks) blocks, "
            + "\(status.bytes >> 20) of \(status.limitBytes >> 20) MiB; \(mode)"
    }
}
