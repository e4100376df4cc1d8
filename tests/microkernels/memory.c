#include "memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#ifdef _WIN32
#include <windows.h>
#else
#include <sys/mman.h>
#include <unistd.h>
#endif

/* All bits set are NaN in either type: what is read by mistake shows, too. */
enum { CANARY = 0xff, MOST_BLOCKS = 128 };

typedef struct {
    unsigned char *pages; /* the first is a guard, as is the one behind the last */
    size_t size;          /* of the pages between */
    size_t begin, bytes;  /* of what was asked for, in these */
} block;

static block blocks[MOST_BLOCKS];
static int num_blocks;

static size_t page_bytes(void)
{
#ifdef _WIN32
    SYSTEM_INFO info;
    GetSystemInfo(&info);
    return info.dwPageSize;
#else
    return (size_t)sysconf(_SC_PAGESIZE);
#endif
}

/* Address space, none of which may be touched. */
static unsigned char *reserve(size_t bytes)
{
#ifdef _WIN32
    return VirtualAlloc(NULL, bytes, MEM_RESERVE | MEM_COMMIT, PAGE_NOACCESS);
#else
    void *pages = mmap(NULL, bytes, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    return pages == MAP_FAILED ? NULL : pages;
#endif
}

static int allow(unsigned char *pages, size_t bytes, int writing)
{
#ifdef _WIN32
    DWORD before;
    return VirtualProtect(pages, bytes, writing ? PAGE_READWRITE : PAGE_READONLY, &before);
#else
    return mprotect(pages, bytes, PROT_READ | (writing ? PROT_WRITE : 0)) == 0;
#endif
}

static void give_back(unsigned char *pages, size_t bytes)
{
#ifdef _WIN32
    (void)bytes;
    VirtualFree(pages, 0, MEM_RELEASE);
#else
    munmap(pages, bytes);
#endif
}

void *guarded(size_t bytes, int at_the_end)
{
    const size_t page = page_bytes();
    const size_t size = (bytes + page) / page * page;
    unsigned char *pages = reserve(size + 2 * page);
    if (num_blocks == MOST_BLOCKS || !pages || !allow(pages + page, size, 1)) {
        fprintf(stderr, "no memory for %zu bytes between guards\n", bytes);
        exit(3);
    }
    memset(pages + page, CANARY, size);
    blocks[num_blocks++] = (block){pages, size, at_the_end ? size - bytes : 0, bytes};
    return pages + page + (at_the_end ? size - bytes : 0);
}

void protect(void *memory)
{
    const size_t page = page_bytes();
    for (int i = 0; i < num_blocks; i++)
        if (blocks[i].pages + page + blocks[i].begin == memory)
            allow(blocks[i].pages + page, blocks[i].size, 0);
}

int free_all(void)
{
    const size_t page = page_bytes();
    int intact = 1;
    for (; num_blocks > 0; num_blocks--) {
        const block *b = &blocks[num_blocks - 1];
        for (size_t i = 0; i < b->size; i++)
            if (i < b->begin || i >= b->begin + b->bytes)
                intact &= b->pages[page + i] == CANARY;
        give_back(b->pages, b->size + 2 * page);
    }
    return intact;
}
