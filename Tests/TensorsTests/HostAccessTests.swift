import Tensors
import Testing

@Suite struct `Scratch that kernels fill` {
    @Test func `cannot be followed by the host, on any rank and in any test`() async {
        await #expect(processExitsWith: .failure) {
            let view = Scratch(bytes: 1 << 16).rows(1, 16)
            print(unsafe view.hostAddress.pointee)
        }
    }

    @Test func `can be read once the host has waited for it`() {
        let scratch = Scratch(bytes: 1 << 16)
        let (made, view) = (scratch.hostRows(2, 3), scratch.rows(2, 3))
        for row in 0..<2 { for column in 0..<3 { made[row, column] = Float(10 * row + column) } }
        Kernels.best.copyRows(made.view, into: view)
        #expect(Kernels.best.synchronize(view).elements == [0, 1, 2, 10, 11, 12])
        let chosen = scratch.computed(6)
        Kernels.best.copyRows(view, into: chosen.bits(columns: 3))
        #expect(
            Kernels.best.synchronize(chosen).elements.map { Float(bitPattern: UInt32(bitPattern: $0)) } == [
                0, 1, 2, 10, 11, 12,
            ])
        withExtendedLifetime(scratch) {}
    }
}
