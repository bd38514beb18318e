/// Waits until a condition holds. The bound of about two minutes only ends what never ends: a machine that others use may
/// be slow for seconds.
///
/// - Returns: whether it holds.
package func eventually(
    isolation: isolated (any Actor)? = #isolation, _ condition: () async throws -> Bool
) async rethrows -> Bool {
    for _ in 0..<24_000 {
        if try await condition() { return true }
        try? await Task.sleep(for: .milliseconds(5))
    }
    return try await condition()
}
